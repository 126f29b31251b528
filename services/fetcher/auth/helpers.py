"""Credential helpers: `docker-credential-<name> get`, asked once at a time and not again before a registry refuses the answer.

Source: docker-credential-helpers' protocol.
"""

import asyncio
import json
import re
import time
from collections import defaultdict

from services.fetcher.auth.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SECONDS = 30.0
_NOTHING_LASTS = 30.0
"""Seconds for which a helper that knew nothing, or failed, is not asked again: an image is many requests."""
_MOST = 1000
_NOT_FOUND = (b"credentials not found", b"no credentials server url", b"no credentials username")
_TOKEN_USER = "<token>"


class HelperFailed(Exception):
    """A helper gave no answer; the message names it and says why, and quotes nothing that it said.

    Attributes:
        lasting: trying again changes nothing: the name is none.
    """

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class Helpers:
    """Asks helpers, and remembers what they said until `forget`."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, Secret | HelperFailed | None]] = {}
        """What each helper said of each server, and when it was asked, on the monotonic clock."""
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ask(self, name: str, server: str) -> Secret | None:
        """What a helper knows of a server; None where it knows nothing.

        Raises:
            HelperFailed: it cannot be started, fails, or says what cannot be read.
        """
        key = (name, server)
        async with self._locks[key]:
            asked, answer = self._known.get(key, (float("-inf"), None))
            if not isinstance(answer, Secret) and asked + _NOTHING_LASTS <= time.monotonic():
                asked = time.monotonic()
                try:
                    answer = await _ask(name, server)
                except HelperFailed as exc:
                    answer = exc
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[key] = (asked, answer)
        if isinstance(answer, HelperFailed):
            raise answer
        return answer

    def forget(self, server: str, since: float) -> bool:
        """A registry refused what was known at `since`; whether asking again may bring something else."""
        known = [key for key in self._known if key[1] == server]
        for key in known:
            if self._known[key][0] <= since:
                del self._known[key]
        return bool(known)


async def _ask(name: str, server: str) -> Secret | None:
    if not _NAME.fullmatch(name):
        raise HelperFailed(f"{name[:64]!r} is no name of a credential helper", lasting=True)
    program = f"docker-credential-{name}"
    code, said, complained = await _run(program, server)
    if code:
        if any(word in text.lower() for word in _NOT_FOUND for text in (said, complained)):
            return None
        raise HelperFailed(f"the credential helper {program} failed: exit code {code}")
    try:
        # Go reads the first value and leaves the rest, and some helpers print more.
        told, _ = json.JSONDecoder().raw_decode(said.decode().lstrip("\ufeff \t\r\n"))
        fields = {key.lower(): value or "" for key, value in told.items()}
        username, secret = fields.get("username", ""), fields.get("secret", "")
        if not (isinstance(username, str) and isinstance(secret, str)):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise HelperFailed(f"the credential helper {program} failed: its answer cannot be read") from None
    if not username and not secret:
        return None
    return Secret(identity_token=secret) if username == _TOKEN_USER else Secret(username, secret)


async def _run(program: str, server: str) -> tuple[int, bytes, bytes]:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(program, "get", stdin=pipe, stdout=pipe, stderr=pipe)
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or "it cannot be started"
        raise HelperFailed(f"the credential helper {program} failed: {why}") from exc
    try:
        async with asyncio.timeout(_SECONDS):
            said, complained = await process.communicate(server.encode())
    except TimeoutError as exc:
        raise HelperFailed(f"the credential helper {program} failed: no answer within {_SECONDS:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said, complained

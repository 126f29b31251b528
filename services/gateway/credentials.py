"""Secrets that clients bring with a pull, kept where the fetcher of the same store finds them.

    <store>/credentials/client-<32 hex digits>.json      one secret for one registry, in the form of docker's config.json
    <store>/credentials/key                              the key of the names

A request names the file by its `credential`; the secret itself is in no event, no log and no error. The name is a keyed hash of
registry and secret: who reads the log cannot try passwords against it, and who brings the same secret again shares what is in
flight. The file says until when it counts. It is kept fresh while a pull needs it, and taken away when it has ended.
"""

import asyncio
import fcntl
import hmac
import json
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pullonce import private
from pullonce.errors import Permanent, PullonceError
from pullonce.store.layout import Layout

log = logging.getLogger(__name__)

LIFETIME = 3600.0
"""Seconds for which a secret counts after it was last brought or needed: a flight goes on without its client, and retries."""
MOST = 1000
"""Secrets that are kept at a time: whoever reaches a door can make them up."""
UNPROVED = 100
"""Of those that no registry has accepted yet, as many are needed at a time."""
_REFUSED = ("UNAUTHORIZED", "DENIED")
_LOCKED = 5.0
"""Seconds to wait for another gateway of the same store."""
_LOOK = 0.02
_KEY, _KEY_LENGTH = "key", 32
_RENEWED_AT = 0.75
"""Share of the lifetime below which a file is written again."""


class CredentialNotKept(PullonceError):
    """The secret of a client cannot be kept for the fetcher, so nothing can be pulled with it."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a client shows to a registry. It does not print itself."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


class Credentials:
    """The secrets of one store that clients brought.

    Args:
        root: the store's directory.
        group: whose members may read them: services that run as other users (`PULLONCE_GROUP`); empty: only the store's user.
        lifetime: seconds for which a secret counts after it was last brought or needed.
    """

    def __init__(self, root: Path, group: str = "", *, lifetime: float = LIFETIME) -> None:
        self._place = Layout(root).credentials
        self._group = group
        self._lifetime = lifetime
        self._users: Counter[str] = Counter()
        self._proved: dict[str, None] = {}
        """Names of those that were of use, the latest last."""

    @asynccontextmanager
    async def held(self, registry: str, login: Login | None) -> AsyncIterator[str]:
        """The name to pull with for as long as the block lasts; empty for who brought nothing.

        Args:
            registry: host and port that the secret is for, as references have it (`docker.io`); nobody else is shown it.

        Raises:
            CredentialNotKept: the disk refuses, or there are too many.
        """
        if login is None:
            yield ""
            return
        name = await asyncio.to_thread(self.keep, registry, login)
        if self._too_many(name):
            await asyncio.to_thread(self._forget, name)
            raise CredentialNotKept(f"{UNPROVED} logins are being tried at registries already, which is as many as may be")
        with self._using(name):
            renewing = asyncio.create_task(self._renew(registry, login))
            try:
                yield name
                self._prove(name)
            except PullonceError as exc:
                if getattr(exc, "code", "") in _REFUSED and self._users[name] == 1 and name not in self._proved:
                    await asyncio.to_thread(self._forget, name)
                raise
            finally:
                renewing.cancel()

    def keep(self, registry: str, login: Login) -> str:
        """Keep a secret for the lifetime from now on; its name. Harmless to repeat.

        Raises:
            CredentialNotKept: the disk refuses, or there are too many.
        """
        shown = (login.username, login.password, login.identity_token, login.registry_token)
        with self._writing() as key:
            digest = hmac.new(key, json.dumps([registry, *shown]).encode(), "sha256").hexdigest()
            name = f"client-{digest[:32]}"
            path = self._place / f"{name}.json"
            now = time.time()
            expires = _expires(path)
            if not expires and len(self._files()) >= MOST and self._take_away(now) == 0:
                raise CredentialNotKept(f"{MOST} secrets of clients are kept already, which is as many as may be")
            if expires < now + self._lifetime * _RENEWED_AT:
                private.write(str(path), _content(registry, login, now + self._lifetime), self._group)
        return name

    def sweep(self) -> int:
        """Take away what counts no more, and what a process that died left half written; how many secrets that were.

        Raises:
            CredentialNotKept: the disk refuses.
        """
        try:
            if not self._place.is_dir():
                return 0
        except OSError as exc:
            raise CredentialNotKept(f"{self._place} cannot be looked at: {exc.strerror or exc}") from exc
        with self._writing():
            return self._take_away(time.time())

    async def sweep_forever(self) -> None:
        """Sweep now and several times in a lifetime."""
        while True:
            try:
                if ended := await asyncio.to_thread(self.sweep):
                    log.info("secrets of clients have ended", extra={"count": ended})
            except CredentialNotKept as exc:
                log.warning("%s", exc)
            await asyncio.sleep(self._lifetime / 4)

    def _files(self) -> list[Path]:
        """All but the key, drafts included. A directory is not ours."""
        with os.scandir(self._place) as entries:
            return [Path(each.path) for each in entries if each.name != _KEY and not each.is_dir(follow_symlinks=False)]

    def _take_away(self, now: float) -> int:
        """Remove what has ended; how many files that were. What cannot be removed keeps nothing else."""
        count = 0
        for path in self._files():
            if _expires(path) <= now:
                with suppress(OSError):
                    path.unlink()
                    count += 1
        return count

    def _forget(self, name: str) -> None:
        """Remove a secret that its registry refuses."""
        with suppress(CredentialNotKept), self._writing():
            (self._place / f"{name}.json").unlink(missing_ok=True)

    def _prove(self, name: str) -> None:
        self._proved.pop(name, None)
        self._proved[name] = None
        while len(self._proved) > MOST:
            del self._proved[next(iter(self._proved))]

    def _too_many(self, name: str) -> bool:
        """Whether one more that no registry has accepted would be one too many."""
        if name in self._proved or name in self._users:
            return False
        return sum(each not in self._proved for each in self._users) >= UNPROVED

    @contextmanager
    def _using(self, name: str) -> Iterator[None]:
        """Count who needs a secret."""
        self._users[name] += 1
        try:
            yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                del self._users[name]

    async def _renew(self, registry: str, login: Login) -> None:
        while True:
            await asyncio.sleep(self._lifetime / 4)
            with suppress(CredentialNotKept):  # what is there counts for a while yet, and it is tried again
                await asyncio.to_thread(self.keep, registry, login)

    @contextmanager
    def _writing(self) -> Iterator[bytes]:
        """Alone among all gateways, with the key; makes what is missing.

        Raises:
            CredentialNotKept: the disk refuses.
        """
        try:
            if not self._place.parent.is_dir():
                raise CredentialNotKept(
                    f"no secret can be kept: {self._place.parent} is not there, no fetcher has served it yet"
                )
            private.directory(str(self._place), self._group)
            directory = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _lock(directory)
                yield self._key()
            finally:
                os.close(directory)
        except OSError as exc:
            raise CredentialNotKept(f"no secret can be kept in {self._place}: {exc.strerror or exc}") from exc
        except Permanent as exc:
            raise CredentialNotKept(f"no secret can be kept: {exc}") from exc

    def _key(self) -> bytes:
        """The key of the names, made where there is none or a damaged one: names are then others, and nothing else is lost."""
        path = self._place / _KEY
        with suppress(FileNotFoundError, ValueError):
            if len(key := bytes.fromhex(path.read_text("ascii"))) == _KEY_LENGTH:
                return key
        key = secrets.token_bytes(_KEY_LENGTH)
        private.write(str(path), key.hex())
        return key


def _lock(directory: int) -> None:
    """Raises BlockingIOError where another one holds it for long: threads of the pool are needed for other things."""
    until = time.monotonic() + _LOCKED
    while True:
        try:
            return fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK)


def _content(registry: str, login: Login, expires: float) -> str:
    entry = {
        "username": login.username,
        "password": login.password,
        "identitytoken": login.identity_token,
        "registrytoken": login.registry_token,
    }
    return json.dumps({"auths": {registry: {name: value for name, value in entry.items() if value}}, "expires": expires})


def _expires(path: Path) -> float:
    """When a file ends, in seconds of the epoch; 0 for one that is not there, or is not ours whole."""
    if path.suffix != ".json":
        return 0.0
    try:
        return float(json.loads(path.read_bytes())["expires"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0

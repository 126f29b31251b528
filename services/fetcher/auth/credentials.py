"""Secrets by name or by registry: docker's `config.json`, podman's `auth.json`, and credential helpers.

Sources: docker's cli configuration file, containers-auth.json(5), docker-credential-helpers' protocol. Files are read at each
use, so a fresh login is seen at once; nothing here is logged, and a `Secret` does not print itself.
"""

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pullonce.errors import Permanent, Retryable

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS = 30.0
_NOT_FOUND = b"credentials not found"
_TOKEN_USER = "<token>"


@dataclass(frozen=True, slots=True)
class Secret:
    """What opens a registry: a user and password, an identity token to trade, or a token to present as it is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


class _Auth(msgspec.Struct, rename={"identity_token": "identitytoken", "registry_token": "registrytoken"}):
    auth: str = ""
    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""


class _Config(msgspec.Struct, rename="camel"):
    auths: dict[str, _Auth] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


class _Helped(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


class Credentials:
    """Finds the secret for a repository.

    Args:
        named: directory with one `<name>.json` for each credential that a request may name, in the form of docker's config.
        configs: configuration files to search, in this order, where a request names none; they need not exist.
    """

    def __init__(self, named: Path, configs: tuple[Path, ...] = ()) -> None:
        self._named = named
        self._configs = configs

    async def find(self, registry: str, repository: str, credential: str = "", *, needed: bool = True) -> Secret | None:
        """The secret for a repository; None where there is none and none was named.

        Args:
            needed: a credential that was named has to hold something for this registry.

        Raises:
            Permanent: `credential.unknown` (no such name, or it holds nothing for this registry), `credential.invalid`.
            Retryable: `credential.helper`; a credential helper failed.
        """
        if credential:
            secret = await self._in(self._named / f"{credential}.json", registry, repository)
            if secret is None and needed:
                why = f"the fetcher knows no credential {credential!r} for {registry}; put one into {self._named}"
                raise Permanent(why, code="credential.unknown", concerns="credential")
            return secret
        for path in self._configs:
            if (secret := await self._in(path, registry, repository)) is not None:
                return secret
        return None

    async def _in(self, path: Path, registry: str, repository: str) -> Secret | None:
        """Helpers go before the file's own entries: docker leaves empty entries behind for what it gave to a helper."""
        try:
            config = msgspec.json.decode(path.read_bytes(), type=_Config)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError, OSError):
            # Without its cause: what the decoder says may quote the file.
            why = f"{path} cannot be read as docker's config.json"
            raise Permanent(why, code="credential.invalid", concerns="credential") from None
        server = _HUB_KEY if registry == "docker.io" else registry
        for helper in (config.cred_helpers.get(registry, ""), config.creds_store):
            if helper and (secret := await _ask_helper(helper, server)) is not None:
                return secret
        entries = {_server(key): entry for key, entry in config.auths.items()}
        for key in _keys(registry, repository):
            if key in entries and (secret := _secret(entries[key])) is not None:
                return secret
        return None


def _server(key: str) -> str:
    """`https://index.docker.io/v1/` → `docker.io`; a key may be a host, a URL, or a host with a path."""
    name = key.partition("://")[2] or key
    name = name.rstrip("/").removesuffix("/v1").removesuffix("/v2")
    host, slash, path = name.partition("/")
    return f"{'docker.io' if host in ('index.docker.io', 'registry-1.docker.io') else host}{slash}{path}"


def _keys(registry: str, repository: str) -> list[str]:
    """The most specific first: `host/team/app`, `host/team`, `host`."""
    parts = repository.split("/")
    return [f"{registry}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)] + [registry]


def _secret(entry: _Auth) -> Secret | None:
    username, password = entry.username, entry.password
    if entry.auth:
        try:
            username, _, password = base64.b64decode(entry.auth).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
    if not (username or entry.identity_token or entry.registry_token):
        return None
    return Secret(username, password.rstrip("\0"), entry.identity_token, entry.registry_token)


async def _ask_helper(name: str, server: str) -> Secret | None:
    """Ask `docker-credential-<name> get`; None where it knows nothing of the server."""
    if not _HELPER.fullmatch(name):
        raise Permanent(f"{name!r} is no name of a credential helper", code="credential.invalid", concerns="credential")
    program = f"docker-credential-{name}"
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(program, "get", stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as exc:
        raise _helper_failed(program, exc.strerror or "it cannot be started") from exc
    try:
        async with asyncio.timeout(_HELPER_SECONDS):
            output, _ = await process.communicate(server.encode())
    except TimeoutError as exc:
        raise _helper_failed(program, f"no answer within {_HELPER_SECONDS:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        if _NOT_FOUND in output:
            return None
        raise _helper_failed(program, f"exit code {process.returncode}")
    try:
        helped = msgspec.json.decode(output, type=_Helped)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _helper_failed(program, "its answer cannot be read") from None
    if helped.username == _TOKEN_USER:
        return Secret(identity_token=helped.secret)
    return Secret(helped.username, helped.secret)


def _helper_failed(program: str, why: str) -> Retryable:
    return Retryable(f"the credential helper {program} failed: {why}", code="credential.helper", concerns="credential")

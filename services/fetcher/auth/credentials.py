"""Secrets by name or by registry, out of login files and credential helpers.

What a request names must be right, or the request fails. What lies in the user's own files is used where it can be: docker
warns and goes on, and so do we; a public image needs none of it.

Files are read at each use, so a fresh login is seen at once; nothing here is logged but names, and a `Secret` does not print
itself.
"""

import logging
import re
import time
from pathlib import Path

from pullonce.errors import Permanent, Retryable
from pullonce.oci.servers import HUB_KEY
from schemas.registry import ANONYMOUS
from services.fetcher.auth.helpers import HelperFailed, Helpers
from services.fetcher.auth.login_files import LoginFile, LoginFileInvalid, parse
from services.fetcher.auth.redaction import Secrets
from services.fetcher.auth.secret import Secret

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BROUGHT = re.compile(r"client-[0-9a-f]{32}")
"""Names of those that a client brought to the gateway, which keeps them (`services.gateway.credentials`)."""
_LONGEST = 8 << 20
_MOST_WARNINGS = 1000


def is_strangers(credential: str) -> bool:
    """Whether a request is made for who is not this machine's user: for nobody, or for a client that brought a login."""
    return credential == ANONYMOUS or _BROUGHT.fullmatch(credential) is not None


class Credentials:
    """Finds the secret for a repository.

    Args:
        named: directory with one `<name>.json` for each credential that a request may name, in the form of docker's config.
        configs: configuration files to search, in this order, where a request names none; they need not exist.
        brought: directory with those that clients brought to the gateway, in the same form, with the moment at which each ends.

    Attributes:
        secrets: all that were found, to be hidden wherever a server says them back.
    """

    def __init__(self, named: Path, configs: tuple[Path, ...] = (), *, brought: Path | None = None) -> None:
        self._named = named
        self._configs = configs
        self._brought = brought
        self.secrets = Secrets()
        self._helpers = Helpers()
        self._warned: set[str] = set()

    async def find(self, registry: str, repository: str, credential: str = "", *, needed: bool = True) -> Secret | None:
        """The secret for a repository; None where there is none and none was named, and for nobody (`ANONYMOUS`).

        Args:
            needed: a credential that was named has to hold something for this registry.

        Raises:
            Permanent: `credential.unknown` (no such name, or it holds nothing for this registry), `credential.invalid`.
            Retryable: `credential.helper`; a helper of a named credential failed.
        """
        secret: Secret | None = None
        if credential == ANONYMOUS:
            return None
        if credential:
            secret = await self._of_name(credential, registry, repository)
            if secret is None and needed:
                raise self._unknown(credential, f" for {registry}")
        for path in () if credential else self._configs:
            if (secret := await self._of_user(path, registry, repository)) is not None:
                break
        self.secrets.keep_secret(secret, strangers=is_strangers(credential))
        return secret

    def check(self, credential: str) -> None:
        """A name stands for a file that is there, whether or not a registry will ask for what is in it.

        Raises:
            Permanent: `credential.unknown`, `credential.invalid`.
        """
        if credential and credential != ANONYMOUS:
            self._read_named(credential)

    def forget(self, registry: str, since: float) -> bool:
        """A registry refused what was known at `since` (monotonic clock); whether asking again may bring another secret."""
        return self._helpers.forget(_server(registry), since)

    async def _of_name(self, credential: str, registry: str, repository: str) -> Secret | None:
        path, file = self._read_named(credential)
        if helper := file.helper(registry):
            try:
                if (secret := await self._helpers.ask(helper, _server(registry))) is not None:
                    return secret
            except HelperFailed as exc:
                if exc.lasting:
                    raise Permanent(f"{path}: {exc}", code="credential.invalid", concerns="credential") from exc
                raise Retryable(str(exc), code="credential.helper", concerns="credential") from exc
        return file.secret(registry, repository)

    async def _of_user(self, path: Path, registry: str, repository: str) -> Secret | None:
        try:
            file = _read(path)
        except FileNotFoundError:
            return None
        except LoginFileInvalid as exc:
            self._warn(f"{path} is left out, it cannot be read as docker's config.json: {exc}")
            return None
        for skipped in file.skipped:
            self._warn(f"{path}: {skipped}; that is left out")
        if helper := file.helper(registry):
            try:
                if (secret := await self._helpers.ask(helper, _server(registry))) is not None:
                    return secret
            except HelperFailed as exc:
                self._warn(f"{path}: {exc}; {registry} is asked without what it knows")
        return file.secret(registry, repository)

    def _read_named(self, credential: str) -> tuple[Path, LoginFile]:
        if not _NAME.fullmatch(credential):
            raise self._unknown(credential[:64])
        brought = self._brought if _BROUGHT.fullmatch(credential) else None
        path = (brought or self._named) / f"{credential}.json"
        try:
            file = _read(path)
        except FileNotFoundError:
            raise self._unknown(credential, brought=brought is not None) from None
        except LoginFileInvalid as exc:
            why = f"{path} cannot be read as docker's config.json: {exc}"
            raise Permanent(why, code="credential.invalid", concerns="credential") from None
        if brought is not None and (file.expires is None or file.expires <= time.time()):
            raise self._unknown(credential, brought=True)
        if file.skipped:
            why = f"{path} cannot be read as docker's config.json: {file.skipped[0]}"
            raise Permanent(why, code="credential.invalid", concerns="credential")
        return path, file

    def _unknown(self, credential: str, where: str = "", *, brought: bool = False) -> Permanent:
        hint = "its client brings it again with its next pull" if brought else f"put one into {self._named}"
        why = f"the fetcher knows no credential {credential!r}{where}{', or no more' if brought else ''}; {hint}"
        return Permanent(why, code="credential.unknown", concerns="credential")

    def _warn(self, line: str) -> None:
        """Say it once: files are read for every request."""
        if line not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(line)
            log.warning("%s", line)


def _server(registry: str) -> str:
    """What helpers call a registry."""
    return HUB_KEY if registry == "docker.io" else registry


def _read(path: Path) -> LoginFile:
    """Raises FileNotFoundError where there is none, and LoginFileInvalid."""
    try:
        if not path.is_file():
            if path.exists():
                raise LoginFileInvalid("it is no file")
            raise FileNotFoundError(path)
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as exc:
        raise LoginFileInvalid(exc.strerror or "it cannot be opened") from None
    if len(content) > _LONGEST:
        raise LoginFileInvalid(f"it is longer than {_LONGEST >> 20} MiB")
    return parse(content, legacy=path.name == ".dockercfg")

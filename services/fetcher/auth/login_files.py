"""docker's `config.json`, podman's `auth.json` and the old `.dockercfg`: what stands in them for a registry. Pure.

Sources: docker's cli configuration file; containers-auth.json(5); Kubernetes' `kubernetes.io/dockerconfigjson`. Read as Go
reads them: nulls are nothing, names of fields in any case, what is not known is skipped.
"""

import base64
import binascii
import codecs
import json
from dataclasses import dataclass, field
from typing import Any

from pullonce.oci.servers import server_of
from services.fetcher.auth.secret import Secret


class LoginFileInvalid(ValueError):
    """A file is no login file. The message does not quote it."""


@dataclass(frozen=True, slots=True)
class LoginFile:
    """What one file says.

    Attributes:
        entries: secrets by `host` or `host/path`.
        store: the helper that is asked for every registry; empty: none.
        helpers: helpers by host; an empty one says that the file itself holds the secret.
        skipped: what could not be used, in words; nothing of its content.
        expires: when a secret that a client brought counts no more, in seconds of the epoch; None: never.
    """

    entries: dict[str, Secret] = field(default_factory=dict)
    store: str = ""
    helpers: dict[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    expires: float | None = None

    def helper(self, registry: str) -> str:
        """The helper to ask for a registry; empty: none. One named for it stands before the one for all."""
        return self.helpers.get(registry.lower(), self.store)

    def secret(self, registry: str, repository: str) -> Secret | None:
        """The most specific first: `host/team/app`, `host/team`, `host`."""
        registry, parts = registry.lower(), repository.split("/")
        keys = (f"{registry}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1))
        return next((self.entries[key] for key in (*keys, registry) if key in self.entries), None)


def parse(content: bytes, *, legacy: bool = False) -> LoginFile:
    """Read a login file. What cannot be used of one entry costs that entry, and is told in `skipped`.

    Args:
        legacy: the form of `.dockercfg`, which is the table of entries alone.

    Raises:
        LoginFileInvalid: it is no JSON object.
    """
    fields = _fields(content)
    auths = fields if legacy else _object(fields.get("auths"), "auths")
    skipped: list[str] = []
    entries: dict[str, Secret] = {}
    for key, given in auths.items():
        try:
            if (secret := _secret(_object(given, "an entry"))) is not None:
                entries.setdefault(server_of(key), secret)
        except LoginFileInvalid as exc:
            skipped.append(f"its entry for {server_of(key)!r}: {exc}")
    if legacy:
        return LoginFile(entries, skipped=tuple(skipped))
    helpers: dict[str, str] = {}
    store = ""
    try:
        store = _text(fields, "credsstore")
        for key, given in _object(fields.get("credhelpers"), "credHelpers").items():
            helpers.setdefault(server_of(key), _text({"": given}, ""))
    except LoginFileInvalid as exc:
        skipped.append(f"its helpers: {exc}")
    return LoginFile(entries, store, helpers, tuple(skipped), _moment(fields))


def _fields(content: bytes) -> dict[str, Any]:
    if not content.strip():
        raise LoginFileInvalid("it is empty")
    try:
        found = json.loads(content.removeprefix(codecs.BOM_UTF8).decode())
    except (ValueError, RecursionError):
        raise LoginFileInvalid("it is no JSON") from None  # without its cause, which may quote the file
    if not isinstance(found, dict):
        raise LoginFileInvalid("it is no JSON object")
    return {name.lower() if name.lower() in _NAMES else name: value for name, value in found.items()}


_NAMES = ("auths", "credsstore", "credhelpers")


def _object(given: Any, what: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise LoginFileInvalid(f"{what} is no object")
    return given


def _text(fields: dict[str, Any], name: str) -> str:
    given = fields.get(name)
    if given is None:
        return ""
    if not isinstance(given, str):
        raise LoginFileInvalid(f"{name or 'a helper'} is no text")
    return given


def _moment(fields: dict[str, Any]) -> float | None:
    """What the gateway writes beside docker's fields; other files have nothing of that name."""
    given = fields.get("expires")
    return float(given) if isinstance(given, int | float) else None


def _secret(entry: dict[str, Any]) -> Secret | None:
    """None for an entry that holds nothing: docker leaves such a one behind for what it gave to a helper."""
    fields = {name.lower(): value for name, value in entry.items()}
    username, password, given = (_text(fields, name) for name in ("username", "password", "auth"))
    identity, registry = _text(fields, "identitytoken"), _text(fields, "registrytoken")
    if given:
        try:
            pair = base64.b64decode(given.strip(), validate=False).decode()
        except (binascii.Error, ValueError):
            raise LoginFileInvalid("auth is no base64 of a user and a password") from None
        username, colon, password = pair.rstrip("\0").partition(":")
        if not colon:
            raise LoginFileInvalid("auth is no base64 of a user and a password")
    if not (username or identity or registry):
        return None
    return Secret(username, password.rstrip("\0"), identity, registry)

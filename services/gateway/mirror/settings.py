"""Where the mirror is reached, whose images it gives, and what it asks of clients from elsewhere."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pullonce.config import SettingInvalid, address, is_loopback, mirror_place
from pullonce.errors import ReferenceInvalid
from pullonce.oci.reference import HUB, parse
from schemas.registry import ANONYMOUS
from services.gateway.mirror.listening import Place

OWN = "own"
"""In place of a credential: the login files of this machine."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLACE = "PULLONCE_GATEWAY_MIRROR"


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """How the mirror works."""

    place: Place
    asked_for: bool
    """Somebody said where it is to be: then it has to be there."""
    default: str
    """The registry that is meant where a name says none."""
    credential: str
    """By which images are pulled for who shows nothing; empty: by the login files of this machine."""
    password: str = field(repr=False, default="")

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> MirrorSettings | None:
        """`PULLONCE_GATEWAY_MIRROR`: `host:port`, `unix:///path` or `off`; by default 127.0.0.1:577 for root, else :5770.
        `PULLONCE_GATEWAY_MIRROR_DEFAULT`: a registry. `PULLONCE_GATEWAY_MIRROR_CREDENTIAL`: `anonymous`, `own`, or a name.
        `PULLONCE_GATEWAY_MIRROR_CERT`, `_KEY` (files), `_PASSWORD`: needed where others than this machine can reach it.

        None: it is left out.

        Raises:
            SettingInvalid: one of them cannot be used.
        """
        given = mirror_place(environ)
        if not given:
            return None
        password = environ.get("PULLONCE_GATEWAY_MIRROR_PASSWORD", "")
        credential = environ.get("PULLONCE_GATEWAY_MIRROR_CREDENTIAL") or ANONYMOUS
        if not _NAME.fullmatch(credential):
            raise SettingInvalid(
                f"PULLONCE_GATEWAY_MIRROR_CREDENTIAL is {credential!r}; expected {ANONYMOUS}, {OWN}, or a credential's name"
            )
        return MirrorSettings(
            place=_place(environ, given, password),
            asked_for=bool(environ.get(_PLACE)),
            default=_default(environ),
            credential="" if credential == OWN else credential,
            password=password,
        )


def _place(environ: Mapping[str, str], given: str, password: str) -> Place:
    if given.startswith(("/", "unix:")):
        path = Path(given.removeprefix("unix://"))
        if not path.is_absolute():
            raise SettingInvalid(f"{_PLACE} is {given!r}; expected unix:///path/of/a/socket, host:port, or off")
        return Place(path=path)
    host, port = address({_PLACE: given}, _PLACE) or ("", 0)
    tls = _tls(environ)
    if not is_loopback(host) and not (tls and password):
        missing = (
            [] if tls else ["PULLONCE_GATEWAY_MIRROR_CERT and PULLONCE_GATEWAY_MIRROR_KEY (files of its certificate and key)"]
        )
        missing += [] if password else ["PULLONCE_GATEWAY_MIRROR_PASSWORD (that clients have to know)"]
        raise SettingInvalid(
            f"{_PLACE} is {host}:{port}, which others can reach: set {' and '.join(missing)} too, or an address of loopback"
        )
    return Place(host=host, port=port, tls=tls)


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    cert, key = environ.get("PULLONCE_GATEWAY_MIRROR_CERT", ""), environ.get("PULLONCE_GATEWAY_MIRROR_KEY", "")
    if not cert and not key:
        return None
    if not cert or not key:
        raise SettingInvalid(
            "of PULLONCE_GATEWAY_MIRROR_CERT and PULLONCE_GATEWAY_MIRROR_KEY only one is set; a certificate needs its key"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as exc:
        raise SettingInvalid(
            f"PULLONCE_GATEWAY_MIRROR_CERT ({cert}) with PULLONCE_GATEWAY_MIRROR_KEY ({key}) cannot be used: {exc}"
        ) from exc
    return context


def _default(environ: Mapping[str, str]) -> str:
    given = environ.get("PULLONCE_GATEWAY_MIRROR_DEFAULT") or HUB
    try:
        if parse(f"{given}/some/repository").registry == given:
            return given
    except ReferenceInvalid:
        pass
    raise SettingInvalid(
        f"PULLONCE_GATEWAY_MIRROR_DEFAULT is {given!r}; expected a registry, such as docker.io or registry.example.com:5000"
    )

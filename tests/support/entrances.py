"""The ways in to a bus, each with a real nats-server: plain, by a password, over TLS with a key or a certificate, by a JWT."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from nacl.signing import SigningKey

from pullonce.bus.nats.nkeys import _encode
from pullonce.config import BusSettings
from tests.support.nats_server import NatsServer
from tests.support.scripted import PARTS, Script, scripted
from tests.support.secured import SecuredBus

OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3
"""First bytes of public keys. Source: the format of nats-io/nkeys."""


class Entrance:
    """A bus, and what it takes to come in.

    Attributes:
        environ: what a client's environment says, the address included.
        admin: the same for who may do everything, as the scripted services do.
    """

    def __init__(self, server: NatsServer, environ: dict[str, str], admin: dict[str, str] | None = None) -> None:
        self.server = server
        self.environ = environ
        self.admin = admin or environ

    @property
    def url(self) -> str:
        return self.environ["PULLONCE_NATS_URL"]

    def settings(self, name: str = "script") -> BusSettings:
        return BusSettings.from_env(name, self.admin)

    def scripted(self, parts: tuple[tuple[str, str], ...] = PARTS) -> AbstractAsyncContextManager[Script]:
        return scripted(self.settings(), parts)


def plain(home: Path) -> Entrance:
    server = NatsServer(home / "nats").start()
    return Entrance(server, {"PULLONCE_NATS_URL": server.url})


def by_password(home: Path) -> Entrance:
    server = NatsServer(home / "nats", more='authorization { user: "me", password: "secret" }').start()
    return Entrance(server, {"PULLONCE_NATS_URL": server.url.replace("://", "://me:secret@")})


def over_tls_by_key(home: Path) -> Entrance:
    """As `pullonce bus init` configures it: the client has the permissions of its role and no more."""
    bus = SecuredBus(home)
    bus.server.start()
    return Entrance(bus.server, bus.environ("client"), bus.environ("admin") | {"PULLONCE_NATS_SETUP": "yes"})


def over_tls_by_certificate(home: Path) -> Entrance:
    bus = SecuredBus(home)
    files = bus.directory / "server"
    tls = f'cert_file: "{files}/server.pem", key_file: "{files}/server.key", ca_file: "{files}/ca.pem", verify: true'
    server = NatsServer(home / "nats", more=f"tls {{ {tls} }}").start()
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=me",
         "-keyout", home / "me.key", "-out", home / "me.csr"], check=True, capture_output=True,
    )  # fmt: skip
    ca = bus.directory / "ca"
    subprocess.run(
        ["openssl", "x509", "-req", "-in", home / "me.csr", "-CA", ca / "ca.pem", "-CAkey", ca / "ca.key", "-CAcreateserial",
         "-out", home / "me.pem", "-days", "2"], check=True, capture_output=True,
    )  # fmt: skip
    named = {"CA": ca / "ca.pem", "CERT": home / "me.pem", "KEY": home / "me.key"}
    environ = {f"PULLONCE_NATS_{name}": str(path) for name, path in named.items()}
    return Entrance(server, environ | {"PULLONCE_NATS_URL": f"tls://127.0.0.1:{server.port}"})


def by_jwt(home: Path) -> Entrance:
    """A server that knows an operator, and a user of one of its accounts with a `.creds` file."""
    operator, account, system, user = (SigningKey.generate() for _ in range(4))
    limits = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1) | {"wildcards": True}
    storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    of_operator = _jwt(operator, OPERATOR, operator, OPERATOR, {"type": "operator"})
    of_account = _jwt(account, ACCOUNT, operator, OPERATOR, {"type": "account", "limits": limits | storage})
    of_user = _jwt(user, USER, account, ACCOUNT, {"type": "user", "subs": -1, "data": -1, "payload": -1})
    of_system = _jwt(system, ACCOUNT, operator, OPERATOR, {"type": "account", "limits": limits})
    preload = f"{{ {_public(account, ACCOUNT)}: {of_account}, {_public(system, ACCOUNT)}: {of_system} }}"
    more = f"operator: {of_operator}\nsystem_account: {_public(system, ACCOUNT)}\nresolver: MEMORY\nresolver_preload: {preload}"
    server = NatsServer(home / "nats", more=more).start()
    seed = _encode(bytes([18 << 3 | USER >> 5, (USER & 31) << 3]), bytes(user))
    (home / "me.creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n"
        f"************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return Entrance(server, {"PULLONCE_NATS_URL": server.url, "PULLONCE_NATS_CREDS": str(home / "me.creds")})


ENTRANCES: dict[str, Callable[[Path], Entrance]] = {
    "plain": plain,
    "password": by_password,
    "tls-nkey": over_tls_by_key,
    "tls-certificate": over_tls_by_certificate,
    "creds": by_jwt,
}


def _public(key: SigningKey, kind: int) -> str:
    return _encode(bytes([kind]), bytes(key.verify_key))


def _jwt(subject: SigningKey, kind: int, issuer: SigningKey, issued_by: int, nats: dict[str, object]) -> str:
    """A claim about one key, signed by another. Source: NATS ADR-14."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    claim = {
        "jti": "x", "iat": int(time.time()), "iss": _public(issuer, issued_by), "name": "test", "sub": _public(subject, kind),
        "nats": nats | {"version": 2},
    }  # fmt: skip
    signed = f"{part(json.dumps({'typ': 'JWT', 'alg': 'ed25519-nkey'}).encode())}.{part(json.dumps(claim).encode())}"
    return f"{signed}.{part(issuer.sign(signed.encode()).signature)}"

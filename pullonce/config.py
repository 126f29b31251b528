"""Environment → frozen settings. Only this module and `environment`, its light part, read environment variables."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pullonce import environment
from pullonce.environment import SettingInvalid as SettingInvalid  # defined where light clients find it

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Where everything lies: `PULLONCE_HOME`, else `/var/lib/pullonce` for root, else below `XDG_DATA_HOME`."""
    return Path(environment.home(environ))


def store_root(base: Path, store: str) -> Path:
    """Directory of one store below a home: its content store and snapshots."""
    return base / "stores" / store


def gateway_socket(base: Path, store: str, name: str) -> Path:
    """Where a listener of a gateway is found, unless it is told otherwise: below `/run/pullonce` for the home of the system."""
    directory = Path("/run/pullonce") if str(base) == "/var/lib/pullonce" else base / "run"
    return directory / (name if store == "default" else f"{store}-{name}")


def mirror_place(environ: Mapping[str, str] = os.environ) -> str:
    """Where a gateway's mirror is reached, `PULLONCE_GATEWAY_MIRROR`: host:port or unix:///path; empty: it is `off`.

    By default, for root, at a port that only root can take: runtimes trust what answers there, so nobody else may while the
    gateway is away.
    """
    given = environ.get("PULLONCE_GATEWAY_MIRROR") or ("127.0.0.1:577" if os.geteuid() == 0 else "127.0.0.1:5770")
    return "" if given == "off" else given


@dataclass(frozen=True, slots=True)
class BusSettings:
    """How to reach the bus, and its leases. Times in seconds."""

    url: str
    """One address, or several of one cluster with commas between them: any that answers will do."""
    name: str
    """What the server's monitoring calls this connection."""
    ack_wait: float = 10.0
    """An order whose worker has been silent this long is given to another. Above 10 s for a cluster of three."""
    replicas: int = 1
    creds: str = ""
    """File that says who we are: a NATS seed (nkey), or a `.creds` file. Empty: what the address says, or nobody."""
    ca: str = ""
    """File of the authority that vouches for the server, for TLS; empty: those of the system."""
    cert: str = ""
    """Our own certificate and its key, where the server wants to see one."""
    key: str = ""
    inbox: str = "_INBOX"
    """Prefix of the subjects that answers to us arrive under: what a role alone may read is named after it."""
    setup: bool = True
    """Make missing streams. Otherwise wait until somebody who may has made them (`pullonce bus setup`)."""

    @property
    def shown(self) -> str:
        """The address without secrets, for logs and messages."""
        return environment.redacted(self.url)

    @staticmethod
    def from_env(name: str, environ: Mapping[str, str] = os.environ) -> BusSettings:
        """`PULLONCE_NATS_` with URL, CREDS, CA, CERT, KEY, INBOX, SETUP; `PULLONCE_ACK_WAIT`, `PULLONCE_REPLICAS`."""
        return BusSettings(
            url=environment.nats_url(environ) or environment.DEFAULT_URL,
            name=name,
            ack_wait=number(environ, "PULLONCE_ACK_WAIT", 10.0, low=1.0, high=600.0),
            replicas=int(number(environ, "PULLONCE_REPLICAS", 1, low=1, high=5)),
            setup=yes(environ, "PULLONCE_NATS_SETUP"),
            **environment.bus_access(environ),
        )


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Which store a worker serves, and where it lies."""

    name: str
    root: Path
    group: str = ""
    """Whose members may read it; empty: only who runs the services."""

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> StoreSettings:
        """`PULLONCE_STORE`, or that of the machine `PULLONCE_NODE`, or `default`, below `PULLONCE_HOME`; `PULLONCE_GROUP`."""
        name = environment.store(environ)
        if not _NAME.fullmatch(name):
            if not environ.get("PULLONCE_STORE"):
                node = environ["PULLONCE_NODE"]
                raise SettingInvalid(f"PULLONCE_NODE is {node!r}; expected the name of a machine: letters, digits, `-` and `.`")
            raise SettingInvalid(f"PULLONCE_STORE is {name!r}; expected 1 to 64 letters, digits, `-` or `_`")
        return StoreSettings(name=name, root=store_root(home(environ), name), group=environment.group(environ))


def yes(environ: Mapping[str, str], key: str, *, default: bool = True) -> bool:
    """`yes` or `no` from the environment; raises SettingInvalid for anything else."""
    text = environ.get(key) or ("yes" if default else "no")
    if text not in ("yes", "no"):
        raise SettingInvalid(f"{key} is {text!r}; expected yes or no")
    return text == "yes"


def number(environ: Mapping[str, str], key: str, default: float, *, low: float, high: float) -> float:
    """A number from the environment, within bounds.

    Raises:
        SettingInvalid: it is no number or out of bounds.
    """
    text = environ.get(key)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise SettingInvalid(f"{key} is {text!r}; expected a number") from None
    if not low <= value <= high:
        raise SettingInvalid(f"{key} is {text}; expected {low:g} to {high:g}")
    return value


def address(environ: Mapping[str, str], key: str, default: str = "") -> tuple[str, int] | None:
    """Host and port of `host:port` from the environment; port 0: any that is free. None where there is none.

    Raises:
        SettingInvalid: it is no such pair.
    """
    text = environ.get(key) or default
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingInvalid(f"{key} is {text!r}; expected host:port, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this machine. Source: RFC 6761, section 6.3."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def metrics_address(environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """`PULLONCE_METRICS_ADDRESS`: where a service shows its metrics and health; unset: nowhere.

    Raises:
        SettingInvalid: it is no host:port.
    """
    return address(environ, "PULLONCE_METRICS_ADDRESS")


def log_level(environ: Mapping[str, str] = os.environ) -> int:
    """`PULLONCE_LOG_LEVEL`: debug, info (the default), warning or error.

    Raises:
        SettingInvalid: there is no such level.
    """
    text = environ.get("PULLONCE_LOG_LEVEL") or "info"
    level = logging.getLevelNamesMapping().get(text.upper())
    if level is None:
        raise SettingInvalid(f"PULLONCE_LOG_LEVEL is {text!r}; expected debug, info, warning or error")
    return level

"""The few environment variables that a light client reads too. Loads nothing: `pullonce pull` counts milliseconds."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "nats://127.0.0.1:4222"


class SettingInvalid(ValueError):
    """An environment variable has a value that cannot be used; the message names it and says what was expected."""


def home(environ: "Mapping[str, str]" = os.environ) -> str:
    """Where everything lies, as an absolute path.

    `PULLONCE_HOME`, else `/var/lib/pullonce` for root, else `pullonce` below `XDG_DATA_HOME` (`~/.local/share`).
    """
    if given := environ.get("PULLONCE_HOME"):
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return "/var/lib/pullonce"
    data = environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(os.path.abspath(data), "pullonce")


def nats_url(environ: "Mapping[str, str]" = os.environ) -> str:
    """`PULLONCE_NATS_URL`, or nothing where none is set."""
    return environ.get("PULLONCE_NATS_URL", "")


def bus_access(environ: "Mapping[str, str]" = os.environ) -> "dict[str, str]":
    """`PULLONCE_NATS_` with CREDS, CA, CERT, KEY (files) and INBOX: who we are on the bus, and whom we trust."""
    access = {name: environ.get(f"PULLONCE_NATS_{name.upper()}", "") for name in ("creds", "ca", "cert", "key")}
    return access | {"inbox": environ.get("PULLONCE_NATS_INBOX") or "_INBOX"}


def client_times(environ: "Mapping[str, str]" = os.environ) -> "dict[str, float]":
    """`PULLONCE_AWAY`: seconds that a bus, or a part, which was there may be away before a client without a deadline gives up.

    Raises:
        SettingInvalid: it is no number of seconds.
    """
    text = environ.get("PULLONCE_AWAY")
    if not text:
        return {}
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e7:
        raise SettingInvalid(f"PULLONCE_AWAY is {text!r}; expected seconds, such as 300")
    return {"away": seconds}


def store(environ: "Mapping[str, str]" = os.environ) -> str:
    """`PULLONCE_STORE`; else the one of the machine that `PULLONCE_NODE` names; else `default`."""
    return environ.get("PULLONCE_STORE") or store_of_node(environ.get("PULLONCE_NODE", "")) or "default"


def store_of_node(node: str) -> str:
    """The store of a machine of a cluster, which has one of its own: its name, as stores may be named.

    Names of machines are DNS subdomains (RFC 1123) and have no underscore, so no two of them meet. What is longer than the 64
    characters of a store is cut, and told apart by a hash of the whole.
    """
    name = node.replace(".", "_")
    if len(name) <= 64:
        return name
    import hashlib  # where it is needed alone: a light client starts in milliseconds

    return f"{name[:51]}-{hashlib.sha256(node.encode()).hexdigest()[:12]}"


def group(environ: "Mapping[str, str]" = os.environ) -> str:
    """`PULLONCE_GROUP`: whose members may use the bus of a home and read its stores; nothing: only who runs it."""
    return environ.get("PULLONCE_GROUP", "")


def ready_file(environ: "Mapping[str, str]" = os.environ) -> str:
    """`PULLONCE_READY_FILE`: what a service makes when it begins its work; nothing where none is wanted."""
    return environ.get("PULLONCE_READY_FILE", "")


def redacted(url: str) -> str:
    """Addresses of the bus without the secrets that they may hold, for logs and messages."""
    parts = (each.strip().rpartition("://") for each in url.split(","))
    return ",".join(f"{scheme}{separator}{rest.rpartition('@')[2]}" for scheme, separator, rest in parts)

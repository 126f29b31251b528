"""The few environment variables that a light client reads too. Loads nothing: `pullonce pull` counts milliseconds."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "nats://127.0.0.1:4222"


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


def store(environ: "Mapping[str, str]" = os.environ) -> str:
    """`PULLONCE_STORE`, or `default`."""
    return environ.get("PULLONCE_STORE") or "default"


def ready_file(environ: "Mapping[str, str]" = os.environ) -> str:
    """`PULLONCE_READY_FILE`: what a service makes when it begins its work; nothing where none is wanted."""
    return environ.get("PULLONCE_READY_FILE", "")


def redacted(url: str) -> str:
    """Addresses of the bus without the secrets that they may hold, for logs and messages."""
    parts = (each.strip().rpartition("://") for each in url.split(","))
    return ",".join(f"{scheme}{separator}{rest.rpartition('@')[2]}" for scheme, separator, rest in parts)

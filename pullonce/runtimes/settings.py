"""What the gateway of a home offers, read from its settings."""

from collections.abc import Mapping

from pullonce.config import SettingInvalid, StoreSettings, gateway_socket, home, mirror_place
from pullonce.runtimes.files import Files, FilesRefused
from pullonce.runtimes.offer import Offer

OFF = "off"
SETTINGS = "/etc/pullonce/pullonce.conf"
"""Where the units of systemd find settings that somebody added."""
CLIENT = "/etc/pullonce/bus/client/env"
"""Where `pullonce bus init` leaves what a client has to know of the bus, its key among it."""
VIEW = "exposed"
"""Where in a store its images lie for podman and others to see, once something is exposed."""


def bus_of(files: Files, environ: Mapping[str, str], *, served: bool) -> tuple[dict[str, str], str]:
    """The settings by which the bus of the gateway is found, and why we may lack some.

    What the environment says goes before what units are given. The key of clients is taken where nothing says another bus.

    Args:
        environ: our own environment.
        served: `pullonce up` serves our home: that is the bus then.
    """
    merged = {**settings_of(files.read(SETTINGS) or ""), **environ}
    if served or any(name in environ for name in ("PULLONCE_NATS_URL", "PULLONCE_NATS_CREDS", "PULLONCE_HOME")):
        return merged, ""
    try:
        text = files.read(CLIENT)
        there = files.names(CLIENT.rpartition("/")[0].rpartition("/")[0])
    except FilesRefused as exc:
        return merged, str(exc)
    if text is None:
        return merged, f"{CLIENT} is not there" if there else ""
    return {**settings_of(text), **merged}, ""


def offer_of(environ: Mapping[str, str]) -> Offer:
    """What a gateway with these settings offers, if it is run by our user.

    Raises:
        SettingInvalid: one of them cannot be used.
    """
    base = home(environ)
    store = StoreSettings.from_env(environ).name

    def socket(key: str, name: str) -> str:
        text = environ.get(key, "")
        if text == OFF:
            return ""
        if text and not text.removeprefix("unix://").startswith("/"):
            raise SettingInvalid(f"{key} is {text!r}; expected the absolute path of a socket, or {OFF}")
        return text.removeprefix("unix://") or str(gateway_socket(base, store, name))

    behind = environ.get("PULLONCE_GATEWAY_CRI_BEHIND", "")
    return Offer(
        home=environ.get("PULLONCE_GATEWAY_SEEN_AT") or str(base),
        store=store,
        snapshotter=socket("PULLONCE_GATEWAY_SNAPSHOTTER", "snapshots.sock"),
        mirror=_mirror(mirror_place(environ), tls=bool(environ.get("PULLONCE_GATEWAY_MIRROR_CERT"))),
        cri=socket("PULLONCE_GATEWAY_CRI", "cri.sock"),
        behind="" if behind == OFF else behind.removeprefix("unix://"),
        view="",  # known only from the disk
        hosts_dir=environ.get("PULLONCE_HOSTS_DIR", ""),
    )


def _mirror(text: str, *, tls: bool) -> str:
    if not text or text.startswith("unix://"):
        return ""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise SettingInvalid(f"PULLONCE_GATEWAY_MIRROR is {text!r}; expected host:port, unix:///path or {OFF}")
    return f"{'https' if tls else 'http'}://{text}"


def settings_of(text: str) -> dict[str, str]:
    """Variables of a file as systemd reads it: `NAME=value` a line, with quotes or without. Source: systemd.exec(5)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.isidentifier():
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[name] = value[1:-1] if quoted else value
    return found

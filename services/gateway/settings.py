"""Which listeners the gateway has, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pullonce.config import BusSettings, SettingInvalid, StoreSettings, gateway_socket, home
from services.gateway.mirror.settings import MirrorSettings
from services.gateway.rpc.sockets import fits
from services.gateway.snapshotter.mounts import UNFIT

OFF = "off"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How a gateway works. A listener that is None is left out."""

    bus: BusSettings
    store: StoreSettings
    place: Path
    """The gateway's own files, on the file system on which containers write."""
    seen_at: Path
    """Where containerd finds the home: the same place, unless the gateway runs in a container that has it elsewhere."""
    snapshotter: Path | None
    """Socket of containerd's snapshot service."""
    mirror: MirrorSettings | None
    """The distribution API."""
    cri: Path | None = None
    """Socket of the CRI's image service."""
    cri_behind: Path | None = None
    """Socket of the runtime that it stands in front of; None: it answers alone."""

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> GatewaySettings:
        """`PULLONCE_HOME`, `PULLONCE_STORE`.

        `PULLONCE_GATEWAY_SNAPSHOTTER`: path of the socket, or `off`. By default `/run/pullonce/snapshots.sock` for the home
        `/var/lib/pullonce`, else `run/snapshots.sock` below the home; the name of another store than `default` stands before it
        (`other-snapshots.sock`); left out where the gateway is not root, or that path is too long for a socket.
        `PULLONCE_GATEWAY_MIRROR` and what belongs to it: see `services.gateway.mirror.settings`.
        `PULLONCE_GATEWAY_CRI`: the same for the CRI's image service, `cri.sock`. `PULLONCE_GATEWAY_CRI_BEHIND`: socket of the
        runtime that it stands in front of.
        `PULLONCE_GATEWAY_SEEN_AT`: where containerd finds the home, where that is another path than here.

        Raises:
            SettingInvalid: one of them cannot be used.
        """
        store = StoreSettings.from_env(environ)
        snapshotter = _socket(environ, "PULLONCE_GATEWAY_SNAPSHOTTER", "snapshots.sock", store.name)
        seen_at = Path(environ.get("PULLONCE_GATEWAY_SEEN_AT") or home(environ))
        if not seen_at.is_absolute():
            raise SettingInvalid(f"PULLONCE_GATEWAY_SEEN_AT is {str(seen_at)!r}; expected the absolute path of a directory")
        if snapshotter is not None and any(character in str(seen_at) for character in UNFIT):
            raise SettingInvalid(
                f"containerd finds the store below {seen_at}, and its mount options have no way to say a comma, a colon or a "
                "backslash in a path: move the home, or set PULLONCE_GATEWAY_SNAPSHOTTER=off"
            )
        cri, behind = _cri(environ, store.name)
        return GatewaySettings(
            bus=BusSettings.from_env("gateway", environ),
            store=store,
            place=home(environ) / "gateway" / store.name,
            seen_at=seen_at,
            snapshotter=snapshotter,
            cri=cri,
            cri_behind=behind,
            mirror=MirrorSettings.from_env(environ),
        )


def _cri(environ: Mapping[str, str], store: str) -> tuple[Path | None, Path | None]:
    """Where the CRI's image service listens, and what is behind it."""
    listens = _socket(environ, "PULLONCE_GATEWAY_CRI", "cri.sock", store)
    behind = Path(environ.get("PULLONCE_GATEWAY_CRI_BEHIND", "").removeprefix("unix://"))
    if behind == Path():
        return listens, None
    if not behind.is_absolute():
        raise SettingInvalid(
            f"PULLONCE_GATEWAY_CRI_BEHIND is {str(behind)!r}; expected the absolute path of a runtime's socket, such as "
            "/run/containerd/containerd.sock"
        )
    if behind == listens:
        raise SettingInvalid(f"PULLONCE_GATEWAY_CRI_BEHIND is {behind}, where the gateway itself is to listen")
    return listens, behind


def _socket(environ: Mapping[str, str], key: str, name: str, store: str) -> Path | None:
    text = environ.get(key, "")
    if text == OFF:
        return None
    if not text:  # containers are root's, and the path has to fit a socket
        path = gateway_socket(home(environ), store, name)
        return path if os.geteuid() == 0 and fits(path) else None
    path = Path(text.removeprefix("unix://"))
    if not path.is_absolute():
        raise SettingInvalid(f"{key} is {text!r}; expected the absolute path of a socket, or {OFF}")
    return path

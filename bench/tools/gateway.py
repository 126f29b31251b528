"""pullonce behind what people run: containerd with its snapshotter and its mirror, by the CRI; and its CRI image service alone.

Configured as `pullonce gateway config containerd` does. Two daemons then count: `pullonce up`, and containerd.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from bench.tools.containerd import _CURRENT, _OF_OLD, Cri, CurrentCri, crictl
from bench.tools.peer import Peer
from bench.tools.peers_ours import Ours
from bench.tools.usage import Group

_PATIENCE = 30.0

_PROXY = """\
[proxy_plugins.pullonce]
  type = "snapshot"
  address = "{place}/home/run/snapshots.sock"
"""
_WITH_OLD = f"""\
{_OF_OLD}{_PROXY}\
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "pullonce"
  disable_snapshot_annotations = false
"""
_WITH_CURRENT = (
    _CURRENT.replace("  use_local_image_pull = false\n", '  use_local_image_pull = false\n  snapshotter = "pullonce"\n')
    + _PROXY
    + """\
  capabilities = ["remap-ids"]
  [proxy_plugins.pullonce.exports]
    root = "{place}/home"
    enable_remote_snapshot_annotations = "true"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "overlayfs"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "pullonce"
"""
)
_MIRROR = '[host."http://{mirror}"]\n  capabilities = ["pull", "resolve"]\n'


def _served(place: Path, host: str, group: Group, **settings: str) -> Ours:
    """`pullonce up`, whose gateway listens below its home."""
    made = Ours(place, host, group)
    made.environ |= {f"PULLONCE_GATEWAY_{name}": value for name, value in settings.items()}
    made.start()
    end = time.monotonic() + _PATIENCE
    while not all((made.home / "run" / name).exists() for name in ("snapshots.sock", "cri.sock")):
        if time.monotonic() > end:
            raise RuntimeError(f"the gateway does not start: {(place / 'daemon.log').read_text()[-800:]}")
        time.sleep(0.05)
    return made


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"127.0.0.1:{found.getsockname()[1]}"


class ThroughCri(Cri):
    """Debian's containerd by its CRI, whose layers are pullonce's."""

    name = "gateway-crictl"
    template = _WITH_OLD
    _ours: Ours | None = None

    def start(self) -> None:
        mirror = _free_address()
        self._ours = _served(self.place, self.host, self._group, MIRROR=mirror)
        self._hosts = _MIRROR.format(mirror=mirror)
        (self.place / "daemon.log").rename(self.place / "pullonce.log")
        super().start()

    def command(self) -> list[str]:
        made = super().command()
        hosts = self.place / "certs.d" / self.host / "hosts.toml"
        server, _, rest = hosts.read_text().partition("\n")
        hosts.write_text(f"{server}\n{self._hosts}{rest}")
        return made

    def stop(self) -> None:
        super().stop()
        if self._ours is not None:
            self._ours.stop()


class CurrentThroughCri(ThroughCri):
    """A current containerd by its CRI, whose layers are pullonce's."""

    name = "gateway-crictl-current"
    variable = CurrentCri.variable
    template = _WITH_CURRENT


class CriAlone(Peer):
    """The gateway's CRI image service by `crictl`, without any containerd."""

    name = "gateway-cri"
    _ours: Ours | None = None

    @classmethod
    def present(cls) -> bool:
        return bool(crictl())

    def start(self) -> None:
        self._ours = _served(self.place, self.host, self._group, MIRROR="off")

    def stop(self) -> None:
        if self._ours is not None:
            self._ours.stop()

    def pull(self, image: str) -> list[str]:
        endpoint = f"unix://{self.place}/home/run/cri.sock"
        return [crictl() or "crictl", "-t", "900s", "-r", endpoint, "-i", endpoint, "pull", f"{self.host}/{image}"]


KINDS: tuple[type[Peer], ...] = (ThroughCri, CurrentThroughCri, CriAlone)

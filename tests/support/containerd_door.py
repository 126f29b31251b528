"""Debian's containerd with a root, a state and sockets of its own, whose snapshots are pullonce's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.containerd import Daemon

_CONFIG = """\
version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{place}/c.sock"
[ttrpc]
  address = "{place}/t.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{place}/opt"
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "100h"
  schedule_delay = "0s"
[plugins."io.containerd.grpc.v1.cri"]
  stats_collect_period = {statistics}
  sandbox_image = "{sandbox}"
  disable_cgroup = true
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{place}/cni"
  conf_dir = "{place}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "pullonce"
  disable_snapshot_annotations = {no_annotations}
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{place}/certs.d"
[proxy_plugins.pullonce]
  type = "snapshot"
  address = "{snapshotter}"
"""


class Containerd(Daemon):
    """One containerd process.

    Args:
        snapshotter: the socket of the snapshot service.
        annotations: whether Prepare says of which image a layer is.
        statistics: seconds between two looks of the CRI at all snapshots.
        sandbox: the image of pods' sandboxes.
        place: its directory, which it takes with it; by default a new one.
    """

    def __init__(
        self, snapshotter: Path, *, annotations: bool = True, statistics: int = 10, sandbox: str = "127.0.0.1:1/none:1",
        place: Path | None = None,
    ) -> None:  # fmt: skip
        place = place or Path(tempfile.mkdtemp(prefix="ctd-"))  # sockets have short paths
        config = _CONFIG.format(
            place=place, snapshotter=snapshotter, statistics=statistics, sandbox=sandbox,
            no_annotations="false" if annotations else "true",
        )  # fmt: skip
        super().__init__(place, config)

    def collect(self) -> None:
        """Have containerd collect its garbage now, and wait for that."""
        self.run("leases", "create", "--id", "collect")
        self.run("leases", "rm", "--sync", "collect")

    def snapshots(self, namespace: str = "default") -> dict[str, tuple[str, str]]:
        """Its snapshots: name → parent and kind."""
        lines = self.run("snapshots", "--snapshotter", "pullonce", "ls", namespace=namespace).splitlines()[1:]
        rows = [line.split() for line in lines]
        return {row[0]: (row[1] if len(row) == 3 else "", row[-1]) for row in rows}

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        super().stop()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if (target := line.split()[1]).startswith(f"{self.place}/"):
                subprocess.run(["umount", "-l", target], check=False)
        shutil.rmtree(self.place)

"""The programs that are compared: each with a fresh store of its own, and how one client of it pulls an image."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.tools import containerd, gateway
from bench.tools.peer import Peer
from bench.tools.peers_ours import Ours
from bench.tools.usage import Group


class Docker(Peer):
    """Debian's dockerd, overlay2."""

    name = "docker"

    @classmethod
    def present(cls) -> bool:
        return bool(shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") and shutil.which("docker"))

    def command(self) -> list[str]:
        (self.place / "daemon.json").write_text("{}")
        return [
            "dockerd", "--config-file", f"{self.place}/daemon.json", "--iptables=false", "--ip6tables=false", "--bridge=none",
            "--data-root", f"{self.place}/data", "--exec-root", f"{self.place}/exec", "-p", f"{self.place}/pid",
            "-H", f"unix://{self.place}/d.sock", "-s", "overlay2",
        ]  # fmt: skip

    def ready(self) -> list[str]:
        return [*self._docker(), "info"]

    def pull(self, image: str) -> list[str]:
        return [*self._docker(), "pull", f"{self.host}/{image}"]

    def _docker(self) -> list[str]:
        return ["docker", "-H", f"unix://{self.place}/d.sock"]


class Podman(Peer):
    """podman, without a daemon: each client fetches and unpacks for itself."""

    name = "podman"
    disk = 12 << 30  # twenty clients hold as many copies of an image's blobs

    def __init__(self, place: Path, host: str, group: Group) -> None:
        super().__init__(place, host, group)
        # Blobs lie in TMPDIR until they are unpacked. What podman remembers of blobs has one fixed place on a machine: each
        # client sees an empty directory of this run there.
        self.environ["TMPDIR"] = str(place)
        (place / "cache").mkdir()

    @classmethod
    def present(cls) -> bool:
        return bool(shutil.which("podman") and shutil.which("unshare"))

    def pull(self, image: str) -> list[str]:
        roots = ["--root", f"{self.place}/root", "--runroot", f"{self.place}/runroot", "--storage-driver", "overlay"]
        podman = ["podman", *roots, "pull", "--tls-verify=false", f"{self.host}/{image}"]
        return ["unshare", "--mount", "sh", "-ec", _CACHE_APART, "sh", f"{self.place}/cache", *podman]


_CACHE_APART = 'at=/var/lib/containers/cache; mkdir -p $at; mount --bind "$1" $at; shift; exec "$@"'

ALL: dict[str, type[Peer]] = {kind.name: kind for kind in (Ours, *gateway.KINDS, *containerd.KINDS, Docker, Podman)}

"""containerd of several ages, by its own client and by the CRI.

Debian's is taken from PATH. Others are named by the environment, each by the directory of its programs:

    CONTAINERD_BIN       2.2 or later: one layer after another (its default), and several at once
    CONTAINERD_PRE_BIN   before 1.6.3: pulls of one image wait for each other by sleeping
    CRICTL_BIN           the client of the CRI, or its directory, where it is not in PATH
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.tools.peer import Peer

_HOSTS = 'server = "http://{host}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n'
_PLACES = """\
root = "{place}/root"
state = "{place}/state"
[grpc]
  address = "{place}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{place}/opt"
"""
# Up to 1.7: the CRI is one plugin, which pulls with the client's code inside the daemon.
_OF_OLD = f"""\
version = 2
{_PLACES}
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{{place}}/cni"
  conf_dir = "{{place}}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{{place}}/certs.d"
"""
# From 2.1 on the CRI and ctr both pull by the transfer service, and it alone knows how many layers to unpack at once. With one,
# the default, each layer waits for the one below. With more, layers are unpacked without a parent, which is set on commit, if
# the snapshotter can do that: overlayfs can, unless in a user namespace. The CRI must not be asked for anything that sends it
# back to the client's code (another number of downloads, layers thrown away once unpacked): that unpacks one after another.
_CURRENT = f"""\
version = 3
{_PLACES}
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{{place}}/cni"]
  conf_dir = "{{place}}/cni"
[plugins."io.containerd.cri.v1.images"]
  use_local_image_pull = false
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{{place}}/certs.d"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.transfer.v1.local"]
  config_path = "{{place}}/certs.d"
  max_concurrent_unpacks = {{unpacks}}
"""
# Layers differ in size and are committed from the bottom up, so more of them than cores are to be under way. On two cores,
# golang took 4.3 s with two or three at once, 3.8 s with four, 4.1 s with eight.
_AT_ONCE = 2 * len(os.sched_getaffinity(0))


class Containerd(Peer):
    """Debian's, by `ctr`: the client's code pulls, and clients know nothing of each other."""

    name = "ctr"
    variable = ""
    template = _OF_OLD
    unpacks = 1

    @classmethod
    def program(cls, name: str) -> str | None:
        """The path of one of its programs. A directory that is named but lacks it gives none, not another one's."""
        if not cls.variable:
            return shutil.which(name)
        directory = os.environ.get(cls.variable)
        return shutil.which(name, path=directory) if directory else None

    @classmethod
    def present(cls) -> bool:
        return bool(cls.program("containerd") and cls.program("ctr"))

    def command(self) -> list[str]:
        certs, config = self.place / "certs.d" / self.host, self.place / "config.toml"
        certs.mkdir(parents=True)
        (certs / "hosts.toml").write_text(_HOSTS.format(host=self.host))
        config.write_text(self.template.format(place=self.place, unpacks=self.unpacks))
        return [self.program("containerd") or "containerd", "-c", str(config)]

    def ready(self) -> list[str]:
        return [*self._ctr(), "version"]

    def pull(self, image: str) -> list[str]:
        return [*self._ctr(), "-n", "k8s.io", "images", "pull", "--plain-http", f"{self.host}/{image}"]

    def _ctr(self) -> list[str]:
        return [self.program("ctr") or "ctr", "-a", f"{self.place}/c.sock"]


def crictl() -> str | None:
    """The client of the CRI."""
    named = os.environ.get("CRICTL_BIN")
    if not named:
        return shutil.which("crictl")
    return shutil.which("crictl", path=named) if Path(named).is_dir() else shutil.which(named)


class Cri(Containerd):
    """Debian's by its CRI, whose pulls wait for each other's layers instead of retrying."""

    name = "crictl"

    @classmethod
    def present(cls) -> bool:
        return bool(cls.program("containerd") and crictl())

    def ready(self) -> list[str]:
        return [*self._crictl(), "images"]

    def pull(self, image: str) -> list[str]:
        return [*self._crictl(), "pull", f"{self.host}/{image}"]

    def _crictl(self) -> list[str]:
        socket = f"unix://{self.place}/c.sock"
        return [crictl() or "crictl", "-t", "900s", "-r", socket, "-i", socket]


class PreContainerd(Containerd):
    """One from before pulls waited for each other, by `ctr`."""

    name = "ctr-pre"
    variable = "CONTAINERD_PRE_BIN"


class PreCri(Cri):
    """One from before pulls waited for each other, by its CRI."""

    name = "crictl-pre"
    variable = "CONTAINERD_PRE_BIN"


class CurrentContainerd(Containerd):
    """A current one by `ctr`: the daemon pulls, one layer after another is unpacked."""

    name = "ctr-current"
    variable = "CONTAINERD_BIN"
    template = _CURRENT


class ParallelContainerd(CurrentContainerd):
    """A current one by `ctr`, with two layers for each core unpacked at once."""

    name = "ctr-parallel"
    unpacks = _AT_ONCE


class CurrentCri(Cri):
    """A current one by its CRI: one layer after another is unpacked."""

    name = "crictl-current"
    variable = "CONTAINERD_BIN"
    template = _CURRENT


class ParallelCri(CurrentCri):
    """A current one by its CRI, with two layers for each core unpacked at once."""

    name = "crictl-parallel"
    unpacks = _AT_ONCE


KINDS: tuple[type[Containerd], ...] = (
    Containerd,
    Cri,
    PreContainerd,
    PreCri,
    CurrentContainerd,
    ParallelContainerd,
    CurrentCri,
    ParallelCri,
)

"""The programs that are compared: each with a fresh store of its own, and how one client of it pulls an image."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.tools.usage import Group
from pullonce import discovery

_READY = 60.0


class Peer:
    """A program that pulls images, with its daemon where it has one. Once started, `stop` must follow."""

    name = ""

    def __init__(self, place: Path, host: str, group: Group) -> None:
        self.place = place
        self.host = host
        self.environ = dict(os.environ)
        self._group = group
        self._daemon: subprocess.Popen[bytes] | None = None

    @classmethod
    def present(cls) -> bool:
        """Whether it is installed."""
        raise NotImplementedError

    def command(self) -> list[str] | None:
        """Its daemon, after whatever files that needs were written."""
        return None

    def ready(self) -> list[str] | None:
        """What succeeds once the daemon serves."""
        return None

    def pull(self, image: str) -> list[str]:
        """One client."""
        raise NotImplementedError

    def start(self) -> None:
        command = self.command()
        if command is None:
            return
        with (self.place / "daemon.log").open("wb") as log, self._group.inside():
            self._daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ, start_new_session=True
            )
        end, ready = time.monotonic() + _READY, self.ready()
        while ready and subprocess.run(ready, check=False, capture_output=True, env=self.environ).returncode:
            if time.monotonic() > end or self._daemon.poll() is not None:
                raise RuntimeError(f"{self.name} does not start: {(self.place / 'daemon.log').read_text()[-800:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(20)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()


class Ours(Peer):
    """pullonce, embedded: nats-server, coordinator, fetcher, unpacker, ledger."""

    name = "pullonce"

    def __init__(self, place: Path, host: str, group: Group) -> None:
        super().__init__(place, host, group)
        self._script = str(Path(sys.executable).parent / "pullonce")
        self.home = place / "home"
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")}
        self.environ["PULLONCE_HOME"] = str(self.home)

    @classmethod
    def present(cls) -> bool:
        return True

    def command(self) -> list[str]:
        return [self._script, "up"]

    def ready(self) -> list[str]:
        return [self._script, "ping"]

    def pull(self, image: str) -> list[str]:
        return [self._script, "pull", "--quiet", f"{self.host}/{image}"]

    def requester(self, image: str, count: int) -> list[str]:
        """One connected client that asks so many times at once; see `bench.tools.requester`."""
        served = discovery.served(str(self.home))
        assert served is not None, "pullonce up has not said where it serves"
        return [sys.executable, "-m", "bench.tools.requester", served.url, str(count), f"{self.host}/{image}"]


class Containerd(Peer):
    """containerd by `ctr`; by its CRI where crictl is there. `CONTAINERD_BIN` names the directory of another containerd."""

    name = "ctr"

    @classmethod
    def present(cls) -> bool:
        return bool(shutil.which("containerd") and shutil.which("ctr"))

    def command(self) -> list[str]:
        certs = self.place / "certs.d" / self.host
        certs.mkdir(parents=True)
        (certs / "hosts.toml").write_text(f'server = "http://{self.host}"\n[host."http://{self.host}"]\n')
        self._socket = f"{self.place}/c.sock"
        (self.place / "config.toml").write_text(
            f'version = 2\nroot = "{self.place}/root"\nstate = "{self.place}/state"\n[grpc]\n  address = "{self._socket}"\n'
            f'[plugins."io.containerd.grpc.v1.cri".cni]\n  bin_dir = "{self.place}/cni"\n  conf_dir = "{self.place}/cni"\n'
            f'[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{self.place}/certs.d"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\n  path = "{self.place}/opt"\n'
        )
        return ["containerd", "-c", f"{self.place}/config.toml"]

    def ready(self) -> list[str]:
        return ["ctr", "-a", self._socket, "version"]

    def pull(self, image: str) -> list[str]:
        return ["ctr", "-a", self._socket, "-n", "k8s.io", "images", "pull", "--plain-http", f"{self.host}/{image}"]


class Cri(Containerd):
    """containerd by its CRI, whose pulls wait for each other's layers instead of retrying."""

    name = "crictl"

    @classmethod
    def present(cls) -> bool:
        return super().present() and bool(shutil.which("crictl"))

    def ready(self) -> list[str]:
        return [*self._crictl(), "images"]

    def pull(self, image: str) -> list[str]:
        return [*self._crictl(), "pull", f"{self.host}/{image}"]

    def _crictl(self) -> list[str]:
        return ["crictl", "-t", "900s", "-r", f"unix://{self._socket}", "-i", f"unix://{self._socket}"]


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
    """podman, without a daemon."""

    name = "podman"

    @classmethod
    def present(cls) -> bool:
        return bool(shutil.which("podman"))

    def pull(self, image: str) -> list[str]:
        roots = ["--root", f"{self.place}/root", "--runroot", f"{self.place}/runroot", "--storage-driver", "overlay"]
        return ["podman", *roots, "pull", "--tls-verify=false", f"{self.host}/{image}"]


ALL: dict[str, type[Peer]] = {kind.name: kind for kind in (Ours, Containerd, Cri, Docker, Podman)}

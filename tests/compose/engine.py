"""A docker daemon of our own: its data, state and socket in a directory, no network of the machine touched."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.machines import need

_READY = 60.0
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Engine:
    """`with Engine() as engine:`; everything in it is gone afterwards.

    Args:
        options: further ones of the daemon.
        within: a command that starts the daemon, its command line behind it.
        needs: programs that have to be there.
    """

    def __init__(
        self,
        *options: str,
        within: tuple[str, ...] = (),
        needs: tuple[str, ...] = ("dockerd", "containerd", "docker-compose", "docker"),
    ) -> None:
        need(*needs)
        self._options = options
        self._within = within
        # A short path: a socket's name has at most 107 bytes.
        self._home = Path(tempfile.mkdtemp(prefix="pullonce-docker-"))
        self.socket = f"unix://{self._home}/docker.sock"
        # Debian's own client: another one, first on PATH, may speak a newer protocol than its daemon.
        self._docker = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        self.environ = {**os.environ, "DOCKER_HOST": self.socket, "DOCKER_BUILDKIT": "0"}
        self.environ["PATH"] = f"{self.environ.get('PATH', '')}:/usr/sbin:/sbin"
        self._log = self._home / "dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Engine:
        command = [
            *self._within,
            *("dockerd", "--host", self.socket, "--iptables=false", "--bridge=none", "--userland-proxy=true"),
            *("--data-root", str(self._home / "data"), "--exec-root", str(self._home / "exec")),
            *("--pidfile", str(self._home / "docker.pid"), "--config-file", str(self._home / "none.json")),
            *self._options,
        ]
        (self._home / "none.json").write_text("{}")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        end = time.monotonic() + _READY
        while self._try("version").returncode:
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise RuntimeError("dockerd does not start:\n" + self._log.read_text()[-4000:])
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            for container in self._try("ps", "-aq").stdout.split():
                self._try("rm", "-f", "-v", container)
            self._process.terminate()
            self._process.wait(60)
        with open("/proc/self/mounts") as mounts:
            ours = [line.split()[1] for line in mounts if str(self._home) in line]
        for mount in reversed(ours):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self._home, ignore_errors=True)

    def docker(self, *words: str, **more: Any) -> str:
        """Run the client and return what it wrote."""
        done = self._try(*words, **more)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(words)}: {done.stderr[-4000:]}{done.stdout[-4000:]}")
        return done.stdout

    def inspect(self, what: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", what))
        return found[0]

    def load(self, root: Path, name: str, *changes: str) -> None:
        """Make an image of a root file system."""
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            options = [word for change in changes for word in ("--change", change)]
            self.docker("import", *options, "-", name, stdin=tar.stdout)

    def _try(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        more.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([self._docker, *words], env=self.environ, capture_output=True, text=True, check=False, **more)

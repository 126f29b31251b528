"""A real containerd: one process of Debian's, and the judge wherever tools disagree about what a layer is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.layers import Image
from tests.support.programs import die_with_parent, find

_SECONDS = 30.0

_CONFIG = """\
version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{place}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{place}/opt"
"""


class Refused(Exception):
    """containerd does not unpack the image; the message is its own."""


class Daemon:
    """One containerd process with a root, a state and sockets of its own, without anything of the machine's configuration.

    Args:
        place: its directory.
        config: the text of its configuration; `c.sock` below `place` is its address.
    """

    def __init__(self, place: Path, config: str) -> None:
        binary = find("containerd", "containerd is not on PATH (Debian: apt install containerd)")
        self.ctr = find("ctr", "ctr is not on PATH (Debian: apt install containerd)")
        self.place, self.socket, self.log = place, place / "c.sock", place / "log"
        (place / "config.toml").write_text(config)
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [binary, "-c", str(place / "config.toml")], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )  # fmt: skip
        self._wait()

    def run(self, *arguments: str, namespace: str = "default", code: int = 0) -> str:
        """Carry out a command of `ctr`; its output."""
        done = self.start(*arguments, namespace=namespace)
        output, _ = done.communicate(timeout=90)
        assert done.returncode == code, f"{output}\n{self.log.read_text()[-3000:]}"
        return output

    def start(self, *arguments: str, namespace: str = "default") -> subprocess.Popen[str]:
        """Begin a command of `ctr`."""
        return subprocess.Popen(
            [self.ctr, "-a", str(self.socket), "-n", namespace, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _wait(self) -> None:
        until = time.monotonic() + _SECONDS
        while subprocess.run([self.ctr, "-a", str(self.socket), "version"], capture_output=True, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"containerd does not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)


class Judge(Daemon):
    """One that unpacks and mounts images by itself."""

    def __init__(self, place: Path) -> None:
        super().__init__(place, _CONFIG.format(place=place))
        self._count = 0

    @staticmethod
    def present() -> bool:
        return bool(shutil.which("containerd") and shutil.which("ctr"))

    @contextmanager
    def mounted(self, image: Image) -> Iterator[Path]:
        """The image's tree as containerd unpacks it. Raises Refused where it does not."""
        self._count += 1
        place = self.place / str(self._count)
        image.write_layout(place / "layout")
        with tarfile.open(place / "image.tar", "w") as archive:
            for path in sorted((place / "layout").rglob("*")):
                archive.add(path, path.relative_to(place / "layout"), recursive=False)
        name = f"here/{self._count}"
        self._unless_refused("import", "--base-name", name, "--snapshotter", "overlayfs", str(place / "image.tar"))
        target = place / "tree"
        target.mkdir()
        self._unless_refused("mount", "--snapshotter", "overlayfs", f"{name}:test", str(target))
        try:
            yield target
        finally:
            self.run("images", "unmount", str(target))

    def _unless_refused(self, *words: str) -> None:
        done = self.start("images", *words)
        output, _ = done.communicate(timeout=_SECONDS)
        if done.returncode:
            raise Refused(output)

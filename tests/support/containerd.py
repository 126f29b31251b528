"""A real containerd, for what it makes of a layer: the judge wherever tools disagree."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.support.layers import Image

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


class Containerd:
    """One daemon below a directory, without network and without a configuration of the machine's."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._count = 0

    @staticmethod
    def present() -> bool:
        return bool(shutil.which("containerd") and shutil.which("ctr"))

    def __enter__(self) -> Containerd:
        config = self._place / "config.toml"
        config.write_text(_CONFIG.format(place=self._place))
        with open(self._place / "log", "wb") as log:
            self._process = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
        try:
            while self._ctr("version").returncode:
                assert self._process.poll() is None, (self._place / "log").read_text()
                time.sleep(0.05)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()

    @contextmanager
    def mounted(self, image: Image) -> Iterator[Path]:
        """The image's tree as containerd unpacks it. Raises Refused where it does not."""
        self._count += 1
        place = self._place / str(self._count)
        image.write_layout(place / "layout")
        with tarfile.open(place / "image.tar", "w") as archive:
            for path in sorted((place / "layout").rglob("*")):
                archive.add(path, path.relative_to(place / "layout"), recursive=False)
        name = f"here/{self._count}"
        done = self._ctr("images", "import", "--base-name", name, "--snapshotter", "overlayfs", str(place / "image.tar"))
        if done.returncode:
            raise Refused(done.stderr)
        target = place / "tree"
        target.mkdir()
        done = self._ctr("images", "mount", "--snapshotter", "overlayfs", f"{name}:test", str(target))
        if done.returncode:
            raise Refused(done.stderr)
        try:
            yield target
        finally:
            self._ctr("images", "unmount", str(target))

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "-a", f"{self._place}/c.sock", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

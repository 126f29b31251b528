"""podman, buildah and skopeo with storage and configuration of their own, which look for images in a view too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.programs import die_with_parent, find

_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{place}/root"
runroot = "{place}/run"
[storage.options]
additionalimagestores = [{views}]
"""
_ENGINE = ("--cgroup-manager=cgroupfs", "--runtime=runc", "--events-backend=none")
"""Not by containers.conf: podman ends a container by a process that is told of flags only."""
_CONTAINER = ("--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--pull=never")
_SECONDS = 60.0


class Podman:
    """One user's podman.

    Args:
        views: the additional image stores.
        host: a registry that it may speak to without TLS.
    """

    def __init__(self, *views: Path, host: str = "127.0.0.1:1") -> None:
        find("podman", "podman is not on PATH (Debian: apt install podman)")
        self.place = Path(tempfile.mkdtemp(prefix="pod-"))  # podman takes no long run directory
        self.graph_root = self.place / "root"
        named = ", ".join(f'"{each}"' for each in views)
        (self.place / "storage.conf").write_text(_STORAGE.format(place=self.place, views=named))
        (self.place / "registries.conf").write_text(
            f'unqualified-search-registries = []\n[[registry]]\nlocation = "{host}"\ninsecure = true\n'
        )
        (self.place / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._engine = (*_ENGINE, f"--tmpdir={self.place / 'tmp'}")
        self.environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self.place / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.place / "registries.conf"),
            "HOME": str(self.place),
            "TMPDIR": str(self.place),
        }

    def __enter__(self) -> Podman:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.tried("rm", "-af", "-t", "0")
        subprocess.run(["umount", str(self.graph_root / "overlay")], capture_output=True, check=False)
        shutil.rmtree(self.place, ignore_errors=True)

    def started(self, *arguments: str | Path, program: str = "podman") -> subprocess.Popen[str]:
        """A command that is under way."""
        return subprocess.Popen(
            [program, *(self._engine if program == "podman" else ()), *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=self.environment, preexec_fn=die_with_parent,
        )  # fmt: skip

    def tried(self, *arguments: str | Path, program: str = "podman") -> subprocess.CompletedProcess[str]:
        """A command, however it ends."""
        process = self.started(*arguments, program=program)
        out, err = process.communicate(timeout=_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def did(self, *arguments: str | Path, program: str = "podman") -> str:
        """What a command that must succeed printed."""
        done = self.tried(*arguments, program=program)
        assert done.returncode == 0, f"{program} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def run(self, image: str, *command: str, more: tuple[str, ...] = ()) -> str:
        """What a command in a container of an image printed. Nothing is pulled."""
        return self.did("run", "--rm", *_CONTAINER, *more, image, *command)

    def running(self, image: str, *command: str) -> subprocess.Popen[str]:
        """The same under way."""
        return self.started("run", "--rm", *_CONTAINER, image, *command)

    def images(self) -> dict[str, dict[str, Any]]:
        """Name → what `podman images` says of it."""
        listed = json.loads(self.did("images", "--format", "json", "--no-trunc"))
        return {name: each for each in listed for name in each.get("Names") or [f"<none> {each['Id']}"]}

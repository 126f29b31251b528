"""A home that is served with its gateway, a registry, and a containerd whose snapshots are the home's."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pullonce.store.content import ContentStore
from pullonce.store.snapshots import Snapshots
from tests.support.chaos_check import Verdict, judge, read_log
from tests.support.command import Up, pullonce
from tests.support.containerd_door import Containerd
from tests.support.images import Image, image, layer
from tests.support.layers import entry, tar
from tests.support.programs import find
from tests.support.registry import RegistryServer

_SECONDS = 30.0
_numbers = count(1)


class Door:
    """All of it."""

    def __init__(self, home: Path, registry: RegistryServer, up: Up, containerd: Containerd) -> None:
        self.home = home
        self.registry = registry
        self.up = up
        self.containerd = containerd
        self.socket = home / "run" / "snapshots.sock"
        self.store = home / "stores" / "default"
        self.content = ContentStore(self.store)
        self.snapshots = Snapshots(self.store)

    def push(self, layers: int = 3, *, size: int = 2000) -> tuple[str, Image]:
        """A fresh image: its reference and itself. It has whiteouts, owners, modes and links that a runtime must get right."""
        number = next(_numbers)
        made = picture(number, layers, size)
        return self.registry.push(f"gate/{number}", "1", made), made

    def layer_requests(self, agent: str) -> dict[str, int]:
        """Digest → how often somebody asked the registry for that blob, by what they call themselves."""
        found: dict[str, int] = {}
        for request in self.registry.requests():
            if request.kind == "GET blobs" and request.agent.startswith(agent):
                digest = request.path.rpartition("/")[2]
                found[digest] = found.get(digest, 0) + 1
        return found

    async def verdict(self) -> Verdict:
        """What the log says of everything so far."""
        return judge(await read_log(self.up.url))

    def holds(self) -> list[str]:
        """Names of what is held for containerd."""
        return sorted(json.loads(path.read_bytes())["name"] for path in (self.store / "holds" / "containerd").glob("[!.]*"))

    def run(self, *arguments: str) -> str:
        done = pullonce(*arguments, home=self.home)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def until_served(self, but: int = 0) -> int:
        """Wait until a gateway answers, one of another process than that; its process."""
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            for line in pullonce("ping", home=self.home).stdout.splitlines():
                if line.startswith("gateway") and (pid := int(line.partition("process ")[2].split()[0])) != but:
                    return pid
        raise AssertionError(f"no gateway answers:\n{self.up.log.read_text()[-3000:]}")


def picture(number: int, layers: int, size: int = 2000) -> Image:
    """An image of some layers upon a busybox."""
    busybox = Path(find("busybox", "busybox is not on PATH (Debian: apt install busybox-static)")).read_bytes()
    bottom = tar(
        entry("bin", "dir"), entry("bin/busybox", content=busybox, mode=0o755), entry("bin/cat", "symlink", linkname="busybox"),
        entry("bin/sh", "symlink", linkname="busybox"), entry("tmp", "dir", mode=0o1777), entry("etc", "dir"),
        entry("etc/number", content=str(number).encode()), entry("gone", "dir"), entry("gone/file", content=b"x"),
        entry("opaque", "dir"), entry("opaque/old", content=b"old"),
        entry("owned", content=b"o", uid=1234, gid=4321, mode=0o640),
    )  # fmt: skip
    tars = [bottom]
    for depth in range(1, layers):
        more = [entry("gone/.wh.file"), entry("opaque/.wh..wh..opq"), entry("opaque/new", content=b"new")] if depth == 1 else []
        content = f"{number}.{depth}.".encode() * (size // 4)
        tars.append(tar(*more, entry(f"etc/layer{depth}", content=content, mode=0o600 + depth % 8)))
    return image([layer(each) for each in tars])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    server = RegistryServer(tmp_path_factory.mktemp("registry")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def door(registry: RegistryServer) -> Iterator[Door]:
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    home = Path(tempfile.mkdtemp(prefix="door-"))  # sockets have short paths
    try:
        with Up(home, "--no-ledger") as up:
            made = Door(home, registry, up, None)  # type: ignore[arg-type]
            made.until_served()
            with Containerd(made.socket, statistics=1) as made.containerd:
                yield made
    finally:
        shutil.rmtree(home)

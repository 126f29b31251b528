"""One home for the tests of a module, with images that are unpacked and no service that runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import Shelf, busybox
from tests.support.layers import entry

APP, BARE, PREFILLED = "registry.example/team/app:1", "registry.example/bare:1", "registry.example/prefilled:1"


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """An image with all that layers can have, one without any directory, one with volumes."""
    if os.geteuid() != 0:
        pytest.skip("a bundle's root is a mount, which needs root")
    made = Shelf(tmp_path_factory.mktemp("shelf") / "home")
    with made.unpacker:
        _fill(made)
        yield made


@pytest.fixture(autouse=True)
def tidy(shelf: Shelf) -> Iterator[None]:
    """No mount outlives its test."""
    yield
    for left in shelf.held():
        shelf.say("unbundle", "--force", left)


def _fill(shelf: Shelf) -> None:
    lower = busybox(
        entry("etc/app", content=b"old"), entry("gone", "dir"), entry("gone/file", content=b"x"), entry("opaque", "dir"),
        entry("opaque/old", content=b"old"), entry("etc/linked", "hardlink", linkname="etc/app"),
        entry("owned", content=b"o", uid=1000, gid=1003, mode=0o640), entry("set", content=b"s", mode=0o4755, uid=1000),
        entry("marked", content=b"m", xattrs={"user.mark": "here"}), entry("fifo", "fifo"),
        entry("null", "char", devmajor=1, devminor=3, mode=0o666), entry("abs", "symlink", linkname="/etc/app"),
    )  # fmt: skip
    upper = [
        entry("gone/.wh.file"), entry("opaque/.wh..wh..opq"), entry("opaque/new", content=b"new"),
        entry("etc/app", content=b"fresh", mode=0o600), entry(".", "dir", mode=0o751),
    ]  # fmt: skip
    config = {
        "Cmd": ["sh", "-c", "id; pwd; cat /etc/app"],
        "Env": ["A=1", "B=2"],
        "WorkingDir": "/home/app",
        "User": "app:other",
    }
    shelf.put(APP, lower, upper, config=config)
    program = next(content for info, content in lower if info.name == "bin/busybox")
    shelf.put(BARE, [entry("sh", content=program, mode=0o755)], config={"Entrypoint": ["/sh"], "Cmd": ["-c", "echo bare"]})
    filled = busybox(
        entry("data", "dir", uid=1000, gid=1001, mode=0o2750), entry("data/seed", content=b"seed", uid=1000, gid=1001),
        entry("empty", "dir", uid=1000, gid=1001),
    )  # fmt: skip
    shelf.put(PREFILLED, filled, config={"Cmd": ["sh"], "Volumes": {"/data": {}, "/empty": {}, "/absent": {}}, "User": "app"})


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory to which other users get, as the root of a container with a user namespace has to."""
    place = Path(tempfile.mkdtemp(prefix="bundle-"))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place)

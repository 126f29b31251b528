"""The longest names there are, of 4,095 bytes: no path leads there, and yet they are unpacked, completed, checked, removed."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pullonce.store.mounting import mount, unmount
from pullonce.store.snapshots import Snapshots
from pullonce.store.trees import remove_tree
from services.unpacker.check import check
from tests.support.layers import Image, entry, fails, tar, unpack_all, unpacker

PATH_MAX = 4096
"""With the zero byte behind it."""
WIDE = "/".join(["w" * 255] * 15 + ["x" * 255])
DEEP = "/".join(["d"] * 2047 + ["e"])
NAMES = pytest.mark.parametrize("name", [WIDE, DEEP], ids=["16 components of 255", "2,048 components of 1"])
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="owners, whiteouts and mounts need root")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store that is removed by those who made it: not every program can."""
    yield tmp_path / "store"
    remove_tree(tmp_path / "store")


@contextmanager
def directory(root: Path, path: str) -> Iterator[int]:
    """Descriptor of a directory, however far below."""
    fd = os.open(root, os.O_RDONLY)
    try:
        for part in path.split("/") if path else ():
            below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def names_in(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return sorted(each.name for each in entries)


def status(root: Path, path: str) -> os.stat_result:
    above, _, name = path.rpartition("/")
    with directory(root, above) as fd:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)


def content(root: Path, path: str) -> bytes:
    above, _, name = path.rpartition("/")
    with directory(root, above) as fd, open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
        return file.read()


async def unpacked(store: Path, *layers: bytes) -> Image:
    """Unpack, and check each snapshot as `pullonce verify` does."""
    image = Image(layers)
    async with unpacker(store) as running:
        image.store(running.content)
        await unpack_all(running, image.orders())
        for chain_id in image.chain:
            checked = await check(running, chain_id)
            assert (checked.unchecked, checked.differences) == ("", [])
    return image


def layers_of(name: str) -> list[bytes]:
    """A layer with a file of that name, and one that has the layers below looked at for whatever it needs of them."""
    above = name.rpartition("/")[0]
    parents = [name[:at] for at in range(len(name)) if name[at] == "/"]
    base = tar(
        *(entry(each, "dir", mode=0o711, uid=5, gid=6, xattrs={"user.far": "away"}) for each in parents),
        entry(name, content=b"far away", mode=0o640, uid=7, gid=8, mtime=1_500_000_000, xattrs={"user.x": "y"}),
        entry(f"{above}/g", content=b"gone"),
        entry("near", content=b"near"),
    )
    upper = tar(
        entry(f"{above}/n", content=b"new"),
        entry("link", "hardlink", linkname=name),
        entry(f"{above}/b", "hardlink", linkname="near"),
        entry(f"{above}/.wh.g"),
        entry(f"{above}/.wh.o"),
    )
    return [base, upper]


@AS_ROOT
@NAMES
async def test_unpacked_completed_and_checked(name: str, store: Path, tmp_path: Path) -> None:
    assert len(name) == PATH_MAX - 1
    image = await unpacked(store, *layers_of(name))
    tree = Snapshots(store).path(image.top)
    above = name.rpartition("/")[0]
    brought = status(tree, name)
    assert (brought.st_mode, brought.st_uid, brought.st_gid, brought.st_mtime) == (stat.S_IFREG | 0o640, 7, 8, 1_500_000_000)
    assert os.path.samestat(brought, status(tree, "link"))
    assert content(tree, name) == b"far away"
    assert os.path.samestat(status(tree, f"{above}/b"), status(tree, "near"))
    with directory(tree, above) as fd:
        found = os.fstat(fd)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o711, 5, 6)
        assert os.getxattr(fd, "user.far") == b"away"
        assert names_in(fd) == sorted(["b", "g", "n", name.rpartition("/")[2]])
    gone = status(tree, f"{above}/g")
    assert (stat.S_IFMT(gone.st_mode), gone.st_rdev) == (stat.S_IFCHR, 0)


@AS_ROOT
async def test_a_container_sees_them(store: Path, tmp_path: Path) -> None:
    image = await unpacked(store, *layers_of(WIDE))
    (tmp_path / "mounted").mkdir()
    mount(Snapshots(store).overlay(image.top), tmp_path / "mounted")
    try:
        assert content(tmp_path / "mounted", WIDE) == b"far away"
        with directory(tmp_path / "mounted", WIDE.rpartition("/")[0]) as fd:
            assert names_in(fd) == ["b", "n", "x" * 255]
    finally:
        unmount(tmp_path / "mounted", lazily=True)


@AS_ROOT
async def test_a_damage_that_far_away_is_found(store: Path) -> None:
    name = WIDE
    image = Image(layers_of(name))
    async with unpacker(store) as running:
        image.store(running.content)
        await unpack_all(running, image.orders())
        above, _, last = name.rpartition("/")
        tree = Snapshots(store).path(image.chain[0])
        times = status(tree, name)
        with directory(tree, above) as fd:
            with open(os.open(last, os.O_RDWR, dir_fd=fd), "r+b") as file:
                file.write(b"b")
            os.utime(last, ns=(times.st_atime_ns, times.st_mtime_ns), dir_fd=fd)
        checked = await check(running, image.chain[0])
    assert checked.differences == [f"{name} has other content"]


async def test_opaque_directories_that_far_away(store: Path) -> None:
    above = WIDE.rpartition("/")[0]
    image = await unpacked(store, tar(entry(f"{above}/f", content=b"f")), tar(entry(f"{above}/.wh..wh..opq")))
    with directory(Snapshots(store).path(image.top), above) as fd:
        assert names_in(fd) == []


@pytest.mark.parametrize(
    "entries, said",
    [
        ([entry("a/" * 2048 + "b")], "a name of more than 4096 bytes"),
        ([entry("w" * 256 + "/f")], "too long"),
        (
            [
                entry("/".join(["a"] * 2000), "dir"),
                entry("far", "symlink", linkname="/".join(["a"] * 2000)),
                entry("far/" + "/".join(["b"] * 2000), content=b"further than any name leads"),
            ],
            "at most 4096 can be reached",
        ),
        ([entry("l", "symlink", linkname="t" * 4096)], "too long"),
    ],
    ids=["4,097 bytes", "a component of 256", "further by a link", "a link's target"],
)
async def test_what_no_name_reaches_is_refused(entries: list[object], said: str, store: Path) -> None:
    image = Image([tar(*entries)])  # type: ignore[arg-type]
    async with unpacker(store) as running:
        image.store(running.content)
        fact = await fails(running, image)
    assert (fact.code, fact.concerns) == ("layer.invalid", "source")
    assert said in fact.message
    assert len(fact.message) < 1000


def test_thousands_of_directories_with_few_descriptors(tmp_path: Path) -> None:
    """Under `ulimit -n 256`, the hard limit too; deep ones, and hard links from one deep one to another."""
    deep, other = ("/".join([letter] * 600) for letter in "ab")
    layer = tar(
        *(entry(f"d{n}/e/f", content=b"f") for n in range(1250)),
        entry(f"{deep}/f", content=b"far"),
        entry(f"{other}/f", content=b"away"),
        *(entry(f"{place}/h{n}", "hardlink", linkname=f"{target}/f") for n, place in enumerate((deep, other))
          for target in (deep, other)),
    )  # fmt: skip
    upper = tar(*(entry(f"d{n}/e/g", content=b"g") for n in range(1250)), entry(f"{deep}/g"))
    image = Image([layer, upper])
    (tmp_path / "run.py").write_text(
        "import asyncio, pickle, sys\n"
        "from pathlib import Path\n"
        "from tests.support.layers import unpack_all, unpacker\n"
        "image = pickle.loads(Path(sys.argv[2]).read_bytes())\n"
        "async def main():\n"
        "    async with unpacker(Path(sys.argv[1])) as running:\n"
        "        image.store(running.content)\n"
        "        await unpack_all(running, image.orders())\n"
        "asyncio.run(main())\n"
    )
    (tmp_path / "image").write_bytes(pickle.dumps(image))
    store = tmp_path / "store"
    command = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", sys.executable, tmp_path / "run.py", store, tmp_path / "image"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(names_in_tree(store, image, 0)) == 1250
    assert len(names_in_tree(store, image, 1)) == 1250
    tree = Snapshots(store).path(image.chain[0])
    assert content(tree, f"{deep}/h0") == b"away"
    assert content(tree, f"{other}/h1") == b"away"


def names_in_tree(store: Path, image: Image, layer: int) -> list[Path]:
    tree = Snapshots(store).path(image.chain[layer])
    return list(tree.glob("d*/e/[fg]"))

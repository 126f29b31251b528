"""The awkward layers: what becomes of each, mounted, and the same as umoci makes of it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from pullonce.mounting import mount, unmount
from pullonce.snapshots import Snapshots
from tests.support.awkward import BASE, UPPER
from tests.support.layers import Image, entry, mounted, tar, umoci_unpack, unpack_all, unpacker
from tests.support.trees import Node, differences, read_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and mounts need root")

needs_umoci = pytest.mark.skipif(
    not shutil.which("umoci") and os.environ.get("CI") != "true", reason="umoci is not installed: apt-get install umoci"
)


async def unpack(root: Path, image: Image) -> None:
    async with unpacker(root) as running:
        image.store(running.content)
        orders = image.orders()
        random.shuffle(orders)
        await unpack_all(running, orders)


def comparable(ours: dict[bytes, Node], theirs: dict[bytes, Node]) -> list[str]:
    """Differences but for times that umoci takes from the clock."""
    clocked = {path for path, node in theirs.items() if stat.S_ISDIR(node.kind) and node.mtime > 1_700_000_000 * 10**9}
    trees = [{p: n._replace(mtime=0) if p in clocked else n for p, n in tree.items()} for tree in (ours, theirs)]
    return differences(*trees)


@needs_umoci
@pytest.mark.parametrize("what", UPPER)
async def test_as_umoci_makes_it(what: str, tmp_path: Path) -> None:
    image = Image([BASE, tar(*UPPER[what])])
    theirs = umoci_unpack(image, tmp_path)
    assert theirs is not None
    await unpack(tmp_path / "store", image)
    with mounted(tmp_path / "store", image, tmp_path / "mounted") as ours:
        assert comparable(read_tree(ours), read_tree(theirs)) == []


@needs_umoci
async def test_all_of_them_upon_one_another(tmp_path: Path) -> None:
    apart = ("an opaque root", "a hard link through a link below")
    image = Image([BASE, *(tar(*entries) for what, entries in UPPER.items() if what not in apart)])
    theirs = umoci_unpack(image, tmp_path)
    assert theirs is not None
    await unpack(tmp_path / "store", image)
    with mounted(tmp_path / "store", image, tmp_path / "mounted") as ours:
        assert comparable(read_tree(ours), read_tree(theirs)) == []


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_an_eight_gigabyte_sparse_file(options: list[str], tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        for offset in (0, 1 << 30, (8 << 30) - 9):
            file.seek(offset)
            file.write(b"something")
    layer = subprocess.run(["tar", "-cS", *options, "-C", tmp_path, "big"], check=True, capture_output=True).stdout
    image = Image([layer])
    asyncio.run(unpack(tmp_path / "store", image))
    made = Snapshots(tmp_path / "store").path(image.top) / "big"
    assert made.stat().st_size == 8 << 30
    assert made.stat().st_blocks * 512 < 1 << 20
    with open(made, "rb") as file:
        for offset in (0, 1 << 30, (8 << 30) - 9):
            file.seek(offset)
            assert file.read(9) == b"something"


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_every_dialect_of_gnu_tar(form: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_bytes(b"content" * 1000)
    (source / "d" / "hard").hardlink_to(source / "d" / "f")
    (source / "l").symlink_to("d/f")
    (source / "d").chmod(0o2750)
    (source / "d" / "f").chmod(0o4711)
    os.utime(source, (1_500_000_000, 1_500_000_000))
    os.utime(source / "d", (1_400_000_000, 1_400_000_000))
    for path in (source / "d" / "f", source / "l"):
        os.utime(path, (1_300_000_000, 1_300_000_000), follow_symlinks=False)
    layer = subprocess.run(["tar", "-c", f"--format={form}", "-C", source, "."], check=True, capture_output=True).stdout
    image = Image([layer])
    asyncio.run(unpack(tmp_path / "store", image))
    assert differences(read_tree(Snapshots(tmp_path / "store").path(image.top)), read_tree(source)) == []


async def test_forward_hard_links_are_made_when_their_target_has_come(tmp_path: Path) -> None:
    image = Image([tar(entry("link", "hardlink", linkname="later"), entry("later", content=b"l"))])
    await unpack(tmp_path / "store", image)
    tree = Snapshots(tmp_path / "store").path(image.top)
    assert (tree / "link").samefile(tree / "later")


async def test_aufs_kept_the_targets_of_links_apart(tmp_path: Path) -> None:
    layer = tar(
        entry(".wh..wh.aufs"),
        entry(".wh..wh.plnk", "dir"),
        entry(".wh..wh.plnk/1.2", content=b"c"),
        entry("a", "hardlink", linkname=".wh..wh.plnk/1.2"),
        entry("b", "hardlink", linkname=".wh..wh.plnk/1.2"),
    )
    image = Image([layer])
    await unpack(tmp_path / "store", image)
    tree = Snapshots(tmp_path / "store").path(image.top)
    assert sorted(path.name for path in tree.iterdir()) == ["a", "b"]
    assert (tree / "a").samefile(tree / "b")


async def test_attributes_that_steer_overlayfs_are_left_out(tmp_path: Path) -> None:
    steering = {"trusted.overlay.redirect": "/etc", "trusted.overlay.opaque": "y", "user.kept": "k"}
    image = Image([tar(entry("d", "dir", xattrs=steering))])
    await unpack(tmp_path / "store", image)
    snapshots = Snapshots(tmp_path / "store")
    assert os.listxattr(snapshots.path(image.top) / "d") == ["user.kept"]
    assert snapshots.get(image.top).left_out == {"xattrs": 2}


async def test_more_layers_than_fit_into_a_page_of_mount_options(tmp_path: Path) -> None:
    image = Image([tar(entry(f"f{n}", content=b"%d" % n)) for n in range(220)])
    await unpack(tmp_path / "store", image)
    with mounted(tmp_path / "store", image, tmp_path / "mounted") as ours:
        assert len(list(ours.iterdir())) == 220


async def test_a_writable_mount(tmp_path: Path) -> None:
    image = Image([tar(entry("f", content=b"f"))])
    await unpack(tmp_path / "store", image)
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    overlay = Snapshots(tmp_path / "store").overlay(image.top, upper=tmp_path / "upper", work=tmp_path / "work")
    mount(overlay, tmp_path / "merged")
    try:
        (tmp_path / "merged" / "new").write_text("n")
    finally:
        unmount(tmp_path / "merged")
    assert (tmp_path / "upper" / "new").read_text() == "n"
    assert overlay.arguments("/mnt")[:3] == ["-t", "overlay", "overlay"]

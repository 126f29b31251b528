"""The awkward layers: what becomes of each, mounted, and the same as umoci and GNU tar make of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from pullonce.oci.digest import STACK_LIMIT
from pullonce.store.mounting import MountFailed, mount, unmount
from pullonce.store.snapshots import Snapshots
from tests.support.awkward import BASE, BASE_ENTRIES, UPPER
from tests.support.gnu_tar import Stack
from tests.support.layers import Image, entry, mounted, tar, umoci_unpack, unpack_all, unpacker
from tests.support.star import ARCHIVE, LONG
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


BEYOND_TAR = {
    "var/run/lock": "the link that it passes through leads out of the tree, where only a tool that knows of roots follows it",
    "up/g": "the same",
    "abs/h": "the same",
    "up/../down": "GNU tar takes no name with `..`",
}
"""Entries that GNU tar is not given, and why."""


def gnu_tar(layers: list[list[tuple[tarfile.TarInfo, bytes]]], place: Path) -> Stack:
    """Layers by GNU tar, one upon another."""
    stack = Stack(place / "by-tar")
    for entries in layers:
        (place / "layer.tar").write_bytes(tar(*entries))
        stack.apply(place / "layer.tar")
    return stack


def beside_tar(ours: dict[bytes, Node], stack: Stack) -> list[str]:
    """Differences but for what GNU tar was not given, and for times that it takes from the clock."""
    theirs = read_tree(stack.root)
    named = {b"" if name == "." else os.fsencode(name) for name in stack.named}
    left_out = {b"run/lock", b"etc/g", b"opt/h", b"up", b"abs", b"down"} - theirs.keys()
    trees = [
        {p: n if p in named or not stat.S_ISDIR(n.kind) else n._replace(mtime=0) for p, n in tree.items() if p not in left_out}
        for tree in (ours, theirs)
    ]
    return differences(*trees)


def for_tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Without what GNU tar cannot be given, and the links that only this passes through."""
    return [each for each in entries if each[0].name not in {*BEYOND_TAR, "up", "abs"}]


@needs_umoci
@pytest.mark.parametrize("what", UPPER)
async def test_as_umoci_and_gnu_tar_make_it(what: str, tmp_path: Path) -> None:
    image = Image([BASE, tar(*UPPER[what])])
    theirs = umoci_unpack(image, tmp_path)
    assert theirs is not None
    await unpack(tmp_path / "store", image)
    with mounted(tmp_path / "store", image, tmp_path / "mounted") as place:
        ours = read_tree(place)
    assert comparable(ours, read_tree(theirs)) == []
    if what != "a file, a directory, a file in one layer":  # GNU tar replaces no directory that has something in it
        assert beside_tar(ours, gnu_tar([BASE_ENTRIES, for_tar(UPPER[what])], tmp_path)) == []


@needs_umoci
async def test_all_of_them_upon_one_another(tmp_path: Path) -> None:
    apart = ("an opaque root", "a hard link through a link below")
    layers = [entries for what, entries in UPPER.items() if what not in apart]
    image = Image([BASE, *(tar(*entries) for entries in layers)])
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
    (tmp_path / "layer.tar").write_bytes(layer)
    stack = Stack(tmp_path / "by-tar")
    stack.apply(tmp_path / "layer.tar")
    made, theirs = Snapshots(tmp_path / "store").path(image.top), stack.root
    assert made.joinpath("big").stat().st_size == 8 << 30
    assert made.joinpath("big").stat().st_blocks * 512 < 1 << 20
    # Content of this size is not read by `read_tree`: what is stored of it is compared, and where it lies.
    assert extents(made / "big") == extents(theirs / "big") and len(extents(made / "big")) == 3
    assert differences({b"big": read_tree(made)[b"big"]}, {b"big": read_tree(theirs)[b"big"]}) == []


def extents(path: Path) -> list[tuple[int, bytes]]:
    """What is stored of a sparse file: offset and bytes."""
    found, end = [], 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:  # a hole up to the end
                break
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found.append((start, os.pread(file.fileno(), end - start, start)))
    return found


@needs_umoci
async def test_an_archive_of_star(tmp_path: Path) -> None:
    image = Image([ARCHIVE])
    await unpack(tmp_path / "store", image)
    ours = read_tree(Snapshots(tmp_path / "store").path(image.top))
    assert ours[LONG + b"/" + b"n" * 100].what == (3, hashlib.sha256(b"far").hexdigest())
    assert ours[b"old"].mtime == 10**9
    theirs = umoci_unpack(image, tmp_path)
    assert theirs is not None and comparable(ours, read_tree(theirs)) == []
    (tmp_path / "layer.tar").write_bytes(ARCHIVE)
    stack = Stack(tmp_path / "by-tar")
    stack.apply(tmp_path / "layer.tar")
    assert differences(ours, read_tree(stack.root)) == []


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


@needs_umoci
async def test_forward_hard_links_are_made_when_their_target_has_come(tmp_path: Path) -> None:
    entries = [entry("link", "hardlink", linkname="later"), entry("later", content=b"l")]
    image = Image([tar(*entries)])
    assert umoci_unpack(image, tmp_path) is None  # the others read an archive once, and give up
    with pytest.raises(subprocess.CalledProcessError):
        gnu_tar([entries], tmp_path)
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
    """As many as the kernel takes, and not one more."""
    image = Image([tar(entry(f"f{n}", content=b"%d" % n)) for n in range(STACK_LIMIT + 1)])
    await unpack(tmp_path / "store", image)
    snapshots = Snapshots(tmp_path / "store")
    (tmp_path / "mounted").mkdir()
    mount(snapshots.overlay(image.chain[STACK_LIMIT - 1]), tmp_path / "mounted")
    try:
        assert len(list((tmp_path / "mounted").iterdir())) == STACK_LIMIT
    finally:
        unmount(tmp_path / "mounted")
    with pytest.raises(MountFailed, match=f"{STACK_LIMIT + 1} layers on .*: the kernel mounts {STACK_LIMIT}"):
        mount(snapshots.overlay(image.top), tmp_path / "mounted")


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

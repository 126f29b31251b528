"""Sparse files: large ones that mean no harm, and those made to be written out, read or counted."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from pullonce.store.snapshots import Snapshots
from services.unpacker.compare import differences
from services.unpacker.work.messages import WorkLimits
from tests.support.layers import Image, entry, fails, tar, unpack_all, unpacker

BIG = 8 << 30
LITTLE = 64 << 20


def sparse(name: str, size: int, content: bytes = b"something") -> tuple[tarfile.TarInfo, bytes]:
    """A file of so many bytes of which only the first ones are stored."""
    records = {"GNU.sparse.size": str(size), "GNU.sparse.map": f"0,{len(content)}"}
    return entry(name, content=content, pax_headers=records)


@pytest.mark.parametrize(
    "entries",
    [
        [sparse("giant", 1 << 62)],
        [sparse("giant", (1 << 37) + 1)],
        [sparse(f"{number}", BIG) for number in range(17)],
        [entry("stored", content=b"s"), sparse("almost", 1 << 37)],
    ],
    ids=["4 EiB", "a byte too many", "all of them together", "with what is stored"],
)
async def test_a_layer_has_no_more_bytes_than_its_limit_holes_included(
    entries: list[tuple[tarfile.TarInfo, bytes]], tmp_path: Path
) -> None:
    image = Image([tar(*entries)])
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        fact = await fails(running, image)
    assert (fact.code, fact.concerns) == ("layer.too-large", "source")
    assert "PULLONCE_LAYER_MAX_BYTES" in fact.message


async def test_a_file_that_the_file_system_cannot_hold(tmp_path: Path) -> None:
    """Where the limit is raised beyond what ext4, say, knows."""
    size = 1 << 45
    try:
        with open(tmp_path / "tried", "wb") as file:
            file.truncate(size)
    except OSError:
        pass
    else:
        pytest.skip("this file system holds files of 32 TiB")
    image = Image([tar(sparse("giant", size))])
    async with unpacker(tmp_path / "store", limits=WorkLimits(size=1 << 50)) as running:
        image.store(running.content)
        fact = await fails(running, image)
    assert (fact.code, fact.concerns) == ("layer.too-large", "source")
    assert "file system" in fact.message


async def test_a_hard_link_to_a_sparse_file_below_brings_up_no_holes(tmp_path: Path) -> None:
    image = Image([tar(sparse("big", BIG)), tar(entry("link", "hardlink", linkname="big"))])
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        facts = await unpack_all(running, image.orders())
    snapshots = Snapshots(tmp_path)
    sizes = [fact.size for fact in facts]
    assert sizes == [snapshots.get(chain_id).size for chain_id in image.chain]
    assert sizes[0] == len(b"something"), "what a collector counts is what is stored"
    assert len(b"something") <= sizes[1] < 1 << 20, "of a copy, in blocks"
    made = snapshots.path(image.top) / "link"
    assert made.stat().st_size == BIG
    assert made.stat().st_blocks * 512 < 1 << 20
    assert made.samefile(snapshots.path(image.top) / "big")
    with open(made, "rb") as file:
        assert file.read(20) == b"something".ljust(20, b"\0")


async def test_what_links_bring_up_counts_towards_the_limit(tmp_path: Path) -> None:
    files = [f"f{number}" for number in range(3)]
    image = Image(
        [
            tar(*(entry(name, content=os.urandom(40_000)) for name in files)),
            tar(*(entry(f"link-{name}", "hardlink", linkname=name) for name in files)),
        ]
    )
    async with unpacker(tmp_path, limits=WorkLimits(size=200_000)) as running:
        image.store(running.content)
        _, above = await unpack_all(running, image.orders())
        assert above.size == 120_000
    async with unpacker(tmp_path / "other", limits=WorkLimits(size=100_000)) as running:
        small = Image([tar(entry("f0", content=bytes(70_000))), tar(entry("f1", content=bytes(70_000))), LINKS])
        small.store(running.content)
        await unpack_all(running, small.orders()[:2])
        fact = await fails(running, small, 2)
    assert fact.code == "layer.too-large"
    assert "PULLONCE_LAYER_MAX_BYTES" in fact.message


LINKS = tar(*(entry(f"link-{name}", "hardlink", linkname=name) for name in ("f0", "f1")))


@pytest.mark.parametrize(
    "change, expected",
    [
        ({}, []),
        ({0: b"S"}, ["f has other content"]),
        ({BIG // 2: b"\0"}, []),
        ({BIG // 2: b"x"}, ["f has other content"]),
        ({BIG - 1: b"x"}, ["f has other content"]),
    ],
    ids=["nothing", "what is stored", "a hole that is written out", "something in a hole", "the last byte"],
)
def test_sparse_files_are_compared_by_what_is_stored(change: dict[int, bytes], expected: list[str], tmp_path: Path) -> None:
    trees = [tmp_path / "one", tmp_path / "two"]
    for tree in trees:
        tree.mkdir()
        (tree / "f").write_bytes(b"something")
        os.truncate(tree / "f", BIG)
    for at, what in change.items():
        with open(trees[1] / "f", "r+b") as file:
            file.seek(at)
            file.write(what)
    for tree in trees:
        os.utime(tree / "f", (1, 1))
        os.utime(tree, (1, 1))
    before = bytes_read()
    for expect, found in (trees, trees[::-1]):
        assert list(differences(expect, found)) == expected
    assert bytes_read() - before < LITTLE, "holes are not read"


def bytes_read() -> int:
    """Bytes that this process has asked the kernel for so far."""
    return int(Path("/proc/self/io").read_text().split()[1])

"""Layers that are broken, and layers that try to get out: said clearly, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from pathlib import Path

import pytest
import zstandard

from pullonce.care.mounted import mounted
from pullonce.store import placing
from pullonce.store.disk import free_bytes
from pullonce.store.layout import Layout
from pullonce.store.snapshots import Snapshots
from schemas.oci import DiffID
from services.unpacker.check import check
from services.unpacker.work.messages import WorkLimits
from tests.support.buses import eventually
from tests.support.layers import Image, entry, fails, tar, unpack_all, unpacker
from tests.support.trees import read_tree

BASE = tar(entry("./", "dir"), entry("f", content=os.urandom(3_000_000)))


@pytest.mark.parametrize(
    "code, layer",
    [
        ("layer.escapes", tar(entry("../out"))),
        ("layer.escapes", tar(entry("/../out"))),
        ("layer.escapes", tar(entry("a/../../out"))),
        ("layer.escapes", tar(entry("in", "hardlink", linkname="../../../../etc/passwd"))),
        ("layer.invalid", tar(entry("in", "hardlink", linkname="/etc/passwd"))),
        ("layer.invalid", tar(entry("f", content=b"f"), entry("f/g", content=b"g"))),
        ("layer.invalid", tar(entry("a", "symlink", linkname="b"), entry("b", "symlink", linkname="a"), entry("a/f"))),
        ("layer.invalid", tar(entry("d", "dir"), entry("l", "hardlink", linkname="d"))),
        ("layer.invalid", tar(entry("n" * 256))),
        ("layer.invalid", tar(entry("f", content=b"f" * 10_000))[:3000]),
        ("layer.invalid", b"\0" * 100 + b"x" * 1000 + BASE[:512]),
        ("layer.too-large", tar(*(entry(f"f{n}") for n in range(101)))),
        ("layer.too-large", tar(entry("f", content=bytes(40_000_000)))),
        ("media.unsupported", b"PK\x03\x04" * 1000),
    ],
)
async def test_faults_of_the_layer_are_said_and_harm_nobody(code: str, layer: bytes, tmp_path: Path) -> None:
    stored = layer if code == "media.unsupported" else gzip.compress(layer)
    image, good = Image([layer], [stored]), Image([BASE])
    async with unpacker(tmp_path / "store", limits=WorkLimits(size=30_000_000, entries=100)) as running:
        image.store(running.content)
        good.store(running.content)
        fact = await fails(running, image)
        await unpack_all(running, good.orders())
    if fact.code != code:
        assert (code, fact.code) == ("layer.invalid", "media.unsupported"), fact.message
    assert fact.concerns == "source"
    assert fact.blob in fact.message
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


async def test_the_wrong_diff_id(tmp_path: Path) -> None:
    image = Image([BASE])
    image.diff_ids = [DiffID("sha256:" + "0" * 64)]
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        fact = await fails(running, image)
    assert fact.code == "diffid.mismatch"


async def test_links_lead_nowhere_but_into_the_layer(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    before = read_tree(outside)
    up = "../" * 20 + str(outside)[1:]
    layer = tar(
        entry("abs", "symlink", linkname=str(outside)),
        entry("abs/victim", content=b"1"),
        entry("up", "symlink", linkname=up),
        entry("up/victim2", content=b"2"),
        entry("file", "symlink", linkname=f"{outside}/victim"),
        entry("file", content=b"3"),
        entry("hop", "symlink", linkname="up/.."),
        entry("hop/outside/new", content=b"4"),
        entry("d", "dir"),
        entry("d/x", content=b"5"),
        entry("d", "symlink", linkname=str(outside)),
        entry("d/x", content=b"6"),
        entry("hard", "hardlink", linkname="abs/victim"),
        entry("abs/.wh.victim9"),
        entry("abs/.wh..wh..opq"),
        entry("magic", "symlink", linkname="/proc/self/root"),
        entry("magic/etc/evil", content=b"7"),
        entry("abs", "dir"),
    )
    image = Image([layer])
    async with unpacker(tmp_path / "store") as running:
        image.store(running.content)
        await unpack_all(running, image.orders())
    assert read_tree(outside) == before
    tree = Snapshots(tmp_path / "store").path(image.top)
    inside = tree / str(outside)[1:]
    assert {path.name for path in inside.iterdir()} == {"victim", "victim2", "new", "x"}
    assert (tree / "proc/self/root/etc/evil").read_bytes() == b"7"


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root")
async def test_a_full_disk_concerns_everybody_and_leaves_nothing_behind(tmp_path: Path) -> None:
    await run("mount", "-t", "tmpfs", "-o", "size=4M", "small", str(tmp_path))
    try:
        image, good = Image([tar(entry("f", content=bytes(8 << 20)))]), Image([tar(entry("f", content=b"f"))])
        async with unpacker(tmp_path, workers=1) as running:
            image.store(running.content)
            good.store(running.content)
            fact = await fails(running, image)
            assert (fact.code, fact.concerns) == ("disk.full", "key")
            assert "no space left" in fact.message

            async def given_back() -> bool:  # the tree is removed behind the failure, which nobody is kept waiting for
                return free_bytes(tmp_path) > 3 << 20

            await eventually(given_back)
            await unpack_all(running, good.orders())
    finally:
        await run("umount", "--lazy", str(tmp_path))


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


async def test_diff_ids_by_sha512(tmp_path: Path) -> None:
    """Each layer is hashed as its diffID says, whatever its neighbours' say; one that is wrong is still found."""
    layers = [BASE, tar(entry("g", content=b"g")), tar(entry("h", content=b"h"))]
    image = Image(layers)
    image.set_diff_ids([f"sha512:{hashlib.sha512(layers[0]).hexdigest()}", image.diff_ids[1],
                        f"sha512:{hashlib.sha512(layers[2]).hexdigest()}"])  # fmt: skip
    wrong = Image([BASE])
    wrong.set_diff_ids([f"sha512:{'0' * 128}"])
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        await unpack_all(running, image.orders())
        assert (await fails(running, wrong)).code == "diffid.mismatch"
        for chain_id in image.chain:
            assert (await check(running, chain_id)).differences == []
    assert [snapshot.chain_id for snapshot in Snapshots(tmp_path).chain(image.top)] == image.chain[::-1]
    assert placing.all_of(Layout(tmp_path)) == sorted(image.chain) and placing.strays(Layout(tmp_path)) == []
    assert mounted(image.chain, [f"1 1 0:1 / /x ro - overlay overlay lowerdir={Snapshots(tmp_path).path(image.chain[0])}"]) == {
        image.chain[0]
    }


@pytest.mark.parametrize("window", [1 << 28, 1 << 29])
async def test_a_large_window_of_zstd_is_read_up_to_the_limit(window: int, tmp_path: Path) -> None:
    layer = tar(entry("f", content=b"f" * 100))
    parameters = zstandard.ZstdCompressionParameters(window_log=window.bit_length() - 1, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    image = Image([layer], [packer.compress(layer) + packer.flush()])
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        if window <= WorkLimits().window:
            await unpack_all(running, image.orders())
        else:
            fact = await fails(running, image)
            assert fact.code == "layer.too-large"
            assert "PULLONCE_ZSTD_WINDOW" in fact.message
    async with unpacker(tmp_path, limits=WorkLimits(window=1 << 29)) as running:
        await unpack_all(running, image.orders())

"""Layers that expand without measure: in bytes for each one stored, in entries, in directories, in names.

`PULLONCE_ENTRIES=1000000` unpacks that many files instead of twenty thousand, and says what the worker had in memory at most.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
import zstandard

from services.unpacker.__main__ import UnpackerSettings
from services.unpacker.work.messages import WorkLimits
from tests.support.chaos_disk import small_disk
from tests.support.layers import Image, entry, fails, tar, unpack_all, unpacker

ENTRIES = int(os.environ.get("PULLONCE_ENTRIES", "20000"))
GIB = 1 << 30
SOME = 100 << 20
"""Bytes of memory that a worker may have whatever the number of files."""


def settings(tmp_path: Path, **environ: str) -> WorkLimits:
    given = {"PULLONCE_NATS_URL": "nats://127.0.0.1:1", "PULLONCE_HOME": str(tmp_path)}
    return UnpackerSettings.from_env(given | environ).limits


def zeros(size: int) -> Image:
    """A layer with so many zeros in a file that aufs left behind, which is read, and not written."""
    info, _ = entry(".wh..wh.aufs")
    info.size = size
    hashed, packer = hashlib.sha256(), zstandard.ZstdCompressor(level=1).compressobj()
    stored = []
    head, piece = info.tobuf(tarfile.PAX_FORMAT), bytes(1 << 20)
    for chunk in (head, *[piece] * (size // len(piece)), bytes(1024)):
        hashed.update(chunk)
        stored.append(packer.compress(chunk))
    stored.append(packer.flush())
    image = Image([b""], [b"".join(stored)])
    image.set_diff_ids([f"sha256:{hashed.hexdigest()}"])
    return image


async def test_bytes_for_each_byte_stored(tmp_path: Path) -> None:
    image = zeros(GIB + (1 << 20))
    assert len(image.blobs[0]) * 2000 < GIB
    async with unpacker(tmp_path / "one", limits=settings(tmp_path)) as running:
        image.store(running.content)
        fact = await fails(running, image)
    assert (fact.code, fact.concerns) == ("layer.too-large", "source")
    assert "PULLONCE_LAYER_MAX_RATIO" in fact.message
    async with unpacker(tmp_path / "two", limits=settings(tmp_path, PULLONCE_LAYER_MAX_RATIO="1000000")) as running:
        image.store(running.content)
        await unpack_all(running, image.orders())


async def test_files_cost_no_memory(tmp_path: Path) -> None:
    image = Image([tar(*(entry(f"d{number // 1000}/f{number}") for number in range(ENTRIES)))])
    async with unpacker(tmp_path, workers=1) as running:
        image.store(running.content)
        [fact] = await unpack_all(running, image.orders())
        [worker] = running.pool.processes()
        lines = Path(f"/proc/{worker}/status").read_text().splitlines()
    assert fact.entries == ENTRIES
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    print(f"{ENTRIES} files: {peak / 1e6:.0f} MB at most in the worker")
    assert peak < SOME


@pytest.mark.parametrize("name", ["d{}/", "d{}/f"], ids=["directories with entries", "directories that names pass through"])
async def test_directories_are_worth_ten_entries(name: str, tmp_path: Path) -> None:
    kind = "dir" if name.endswith("/") else "file"
    few, many = (Image([tar(*(entry(name.format(n), kind) for n in range(count)))]) for count in (1500, 1501))
    async with unpacker(tmp_path, limits=WorkLimits(entries=15_000)) as running:
        few.store(running.content)
        many.store(running.content)
        await unpack_all(running, few.orders())
        fact = await fails(running, many)
    assert (fact.code, fact.concerns) == ("layer.too-large", "source")
    assert "more than 1500 directories" in fact.message
    assert "PULLONCE_LAYER_MAX_ENTRIES" in fact.message


async def test_names_for_the_layers_below(tmp_path: Path) -> None:
    """Each of these passes through a directory that no entry names, 4 kB below the root, and is to be looked up there."""
    above = "/".join(["w" * 255] * 15)
    image = Image([tar(*(entry(f"{above}/{number:0200}/f") for number in range(14_000)))])
    with small_disk(tmp_path / "memory", 300) as quick:
        async with unpacker(quick) as running:
            image.store(running.content)
            fact = await fails(running, image)
    assert (fact.code, fact.concerns) == ("layer.too-large", "source")
    assert "bytes of names" in fact.message

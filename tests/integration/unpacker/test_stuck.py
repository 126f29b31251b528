"""Orders whose blob does not come on, and orders that are withdrawn: faults are said at once, and trees stay whole."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pullonce.store.disk import free_bytes
from pullonce.store.snapshots import Snapshot, Snapshots
from services.unpacker.handlers import Unpacker
from services.unpacker.staging import Draft, Staging
from tests.support.buses import eventually
from tests.support.chaos_disk import remount, small_disk
from tests.support.layers import Image, entry, fails, tar, unpack_all, unpacker
from tests.support.trees import read_tree

LIMIT = 30
NOISE = os.urandom(2_000_000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", 6) as found:
        yield found


def grow(running: Unpacker, image: Image, end: int) -> None:
    """So much of the blob is there, and no more will come."""
    running.content.ingest_path(image.descriptor(0).digest).write_bytes(image.blobs[0][:end])


async def test_a_full_disk_is_said_while_the_blob_is_stuck(disk: Path) -> None:
    image = Image([tar(entry("zeros", content=bytes(16 << 20)), entry("noise", content=NOISE))])
    async with unpacker(disk, workers=1) as running:
        good = Image([tar(entry("f", content=b"f"))])
        good.store(running.content)
        grow(running, image, len(image.blobs[0]) - 1_900_000)
        async with asyncio.timeout(LIMIT):
            fact = await fails(running, image)
        assert (fact.code, fact.concerns) == ("disk.full", "key")

        async def given_back() -> bool:  # the tree is removed behind the failure, which nobody is kept waiting for
            return free_bytes(disk) > 3 << 20

        await eventually(given_back)
        await unpack_all(running, good.orders())


async def test_a_faulty_layer_gives_its_worker_back_while_the_blob_is_stuck(tmp_path: Path) -> None:
    """What is wrong counts when the blob is verified; until then another layer has the process, and it is the same one."""
    image = Image([tar(entry("../out", content=bytes(1000)), entry("noise", content=NOISE))])
    good = Image([tar(entry("f", content=b"f"))])
    async with unpacker(tmp_path, workers=1) as running:
        process = running.pool.processes()
        grow(running, image, 500_000)
        order = asyncio.ensure_future(fails(running, image))
        async with asyncio.timeout(LIMIT):
            while running.pool.idle.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await running.pool.idle.wait()
        good.store(running.content)
        await unpack_all(running, good.orders())
        assert running.pool.processes() == process
        assert not order.done()
        order.cancel()
        await asyncio.gather(order, return_exceptions=True)


class Slow(Staging):
    """A staging directory in which each commit waits until it is let go."""

    def __init__(self, inner: Staging) -> None:
        self.__dict__ = inner.__dict__
        self.reached = threading.Event()
        self.go = threading.Event()

    def commit(self, draft: Draft, snapshot: Snapshot) -> bool:
        self.reached.set()
        assert self.go.wait(LIMIT)
        return super().commit(draft, snapshot)


async def test_an_order_withdrawn_during_its_commit_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    files = {f"d{n}/f{n}": b"%d" % n * 100 for n in range(200)}
    image = Image([tar(*(entry(name, content=content) for name, content in files.items()))])
    other = Image([tar(entry("f", content=b"f"))])
    async with unpacker(tmp_path, workers=1) as running:
        image.store(running.content)
        other.store(running.content)
        staging = Slow(running.parts.staging)
        slow = Unpacker(replace(running.parts, staging=staging))
        order = asyncio.ensure_future(slow.unpack_layer(image.orders()[0]))
        await asyncio.to_thread(staging.reached.wait, LIMIT)
        for _ in range(2):
            order.cancel()
            await unpack_all(running, other.orders())  # a barrier: all of another layer passes it meanwhile
        assert not order.done(), "the thread that commits goes on, so its tree must stay"
        staging.go.set()
        with pytest.raises(asyncio.CancelledError):
            await order
        tree = read_tree(Snapshots(tmp_path).path(image.top))
        assert {name.encode() for name in files} < tree.keys()
        [fact] = await unpack_all(running, image.orders())
        assert fact.reused


async def test_what_cannot_be_removed_now_ends_no_service(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def told() -> bool:
        return "cannot be removed yet" in caplog.text

    image = Image([tar(entry("f", content=b"f"))])
    async with unpacker(disk, workers=1) as running:
        image.store(running.content)
        staging = running.parts.staging
        first, second = staging.draft(), staging.draft()
        remount(disk, "ro")
        try:
            staging.discard(first.place)
            await eventually(told)
            assert first.place.exists()
        finally:
            remount(disk, "rw")
        await unpack_all(running, image.orders())
        staging.discard(second.place)
        async with asyncio.timeout(LIMIT):
            while first.place.exists() or second.place.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_nothing_is_left_of_a_layer_that_failed_just_before_the_end(tmp_path: Path) -> None:
    """What is being removed behind a failure when the service stops is removed once, and wholly."""
    image = Image([tar(*(entry(f"d{n}/f{n}", content=b"f") for n in range(1500)), entry("../out"))])
    for _ in range(4):
        async with unpacker(tmp_path) as running:
            image.store(running.content)
            await fails(running, image)
        assert not list((tmp_path / "staging").iterdir())

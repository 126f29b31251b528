"""The unpacker at work: growing blobs, layers in any order, faults, crashes, and layers that try to get out."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import signal
from pathlib import Path

import msgspec
import pytest

from pullonce.bus.memory.bus import MemoryBus
from pullonce.bus.ports import Recorded
from pullonce.errors import Retryable
from pullonce.store.content import open_store
from pullonce.store.snapshots import Snapshots, boot_id
from pullonce.worker.worker import Worker
from schemas.events import Event, LayerUnpacked
from schemas.orders import UnpackLayer
from schemas.progress import BlobProgress
from schemas.routing import progress_subject
from schemas.subjects import digest_token
from services.unpacker.handlers import Unpacker
from tests.support.layers import Image, entry, fails, tar, unpack_all, unpacker
from tests.support.trees import read_tree

BASE = tar(entry("./", "dir"), entry("f", content=os.urandom(3_000_000)))


class Fetch:
    """A fetch in slow motion: bytes into the growing file, and what a fetcher says of it."""

    def __init__(self, running: Unpacker, bus: MemoryBus, image: Image, index: int = 0) -> None:
        self._blob = image.descriptor(index)
        self._bytes = image.blobs[index]
        self._final = running.content.blob_path(self._blob.digest)
        self.growing = running.content.ingest_path(self._blob.digest)
        self._signals = bus.signals

    async def grow(self, end: int | None = None) -> None:
        with open(self.growing, "ab") as file:
            file.write(self._bytes[file.tell() : end])
        await self.say("fetching")

    async def say(self, state: str) -> None:
        progress = BlobProgress(digest=self._blob.digest, state=state)  # type: ignore[arg-type]
        await self._signals.publish(progress_subject(progress), msgspec.json.encode(progress))

    async def end(self, verbed: str) -> None:
        if verbed == "fetched":
            self._final.write_bytes(self._bytes) if not self.growing.exists() else self.growing.rename(self._final)
        await self._signals.publish(f"blob.{verbed}.default.{digest_token(self._blob.digest)}", b"{}")


async def until(condition: object) -> None:
    """Let everything else run until something is true."""
    assert callable(condition)
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def left_in_staging(root: Path) -> list[Path]:
    return list((root / "staging").glob("*/*/*"))


async def test_a_blob_is_followed_while_it_grows(tmp_path: Path) -> None:
    bus = MemoryBus()
    image = Image([BASE])
    async with unpacker(tmp_path, bus) as running:
        order = asyncio.ensure_future(running.unpack_layer(image.orders()[0]))
        fetch = Fetch(running, bus, image)
        for end in range(1, len(image.blobs[0]), 200_000):
            await fetch.grow(end)
            await until(lambda: running.pool.starving == 1)
        await fetch.grow()
        assert not order.done()
        assert not list((tmp_path / "snapshots").iterdir()), "not before it is verified"
        await fetch.end("fetched")
        [fact] = await order
    assert fact.entries == 2
    assert Snapshots(tmp_path).has(image.top)


async def test_no_worker_is_taken_before_the_first_byte(tmp_path: Path) -> None:
    bus = MemoryBus()
    image = Image([BASE])
    async with unpacker(tmp_path, bus) as running:
        order = asyncio.ensure_future(running.unpack_layer(image.orders()[0]))
        fetch = Fetch(running, bus, image)
        await fetch.say("fetching")
        await asyncio.sleep(0)
        assert running.pool.idle.is_set()
        await fetch.grow()
        await fetch.end("fetched")
        await order


async def test_stuck_downloads_hold_up_no_other_layer(tmp_path: Path) -> None:
    bus = MemoryBus()
    stuck = [Image([tar(entry(f"stuck{n}", content=os.urandom(300_000)))]) for n in range(7)]
    async with unpacker(tmp_path, bus, workers=1) as running:
        fetches = [Fetch(running, bus, image) for image in stuck]
        orders = [asyncio.ensure_future(running.unpack_layer(image.orders()[0])) for image in stuck]
        for fetch in fetches:
            await fetch.grow(1000)
        await until(lambda: running.pool.starving == 4)
        ready = Image([BASE])
        ready.store(running.content)
        await unpack_all(running, ready.orders())
        for fetch in fetches:
            await fetch.grow()
            await fetch.end("fetched")
        await asyncio.gather(*orders)
        assert all(Snapshots(tmp_path).has(image.top) for image in stuck)


async def test_a_download_that_begins_again_with_other_bytes_harms_nothing(tmp_path: Path) -> None:
    bus = MemoryBus()
    image = Image([BASE])
    async with unpacker(tmp_path, bus) as running:
        fetch = Fetch(running, bus, image)
        wrong = gzip.compress(tar(entry("wrong", content=os.urandom(200_000))))
        fetch.growing.write_bytes(wrong)
        order = asyncio.ensure_future(running.unpack_layer(image.orders()[0]))
        await until(lambda: running.pool.starving == 1 or not running.pool.idle.is_set())
        fetch.growing.unlink()
        await fetch.end("fetched")
        await order
    assert read_tree(Snapshots(tmp_path).path(image.top)).keys() == {b"", b"f"}


async def test_a_blob_that_does_not_come_concerns_nobody(tmp_path: Path) -> None:
    bus = MemoryBus()
    image = Image([BASE])
    async with unpacker(tmp_path, bus) as running:
        for begun in (False, True):
            fetch = Fetch(running, bus, image)
            order = asyncio.ensure_future(fails(running, image))
            if begun:
                await fetch.grow(1000)
                await until(lambda: running.pool.starving == 1)
            await until(lambda order=order: order.done() or running.parts.news.has(image.descriptor(0).digest))
            await fetch.end("failed")
            assert (await order).concerns == "nobody"
        image.store(running.content)
        await unpack_all(running, image.orders())


async def test_layers_come_in_any_order(tmp_path: Path) -> None:
    image = Image([BASE, *(tar(entry(f"etc/f{n}", content=b"%d" % n)) for n in range(20))])
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        orders = image.orders()
        for order in random.sample(orders, len(orders)):
            if order.parent:
                orders.append(order)
        facts = await unpack_all(running, random.sample(orders, len(orders)))
    assert len(facts) == 41
    assert [snapshot.chain_id for snapshot in Snapshots(tmp_path).chain(image.top)] == image.chain[::-1]


async def test_a_layer_waits_for_all_below_though_the_next_one_is_there_first(tmp_path: Path) -> None:
    """The middle layer needs nothing of the lowest one, and is committed before it."""
    lowest, middle = tar(entry("etc", "dir", mode=0o700)), tar(entry("./", "dir"), entry("opt", "dir"))
    image = Image([lowest, middle, tar(entry("etc/a", content=b"a"))])
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        orders = image.orders()
        await running.unpack_layer(orders[1])
        highest = asyncio.ensure_future(running.unpack_layer(orders[2]))
        await until(lambda: highest.done() or running.parts.news.has(image.chain[0]))
        assert not highest.done()
        await running.unpack_layer(orders[0])
        await highest
    assert (Snapshots(tmp_path).path(image.top) / "etc").stat().st_mode & 0o777 == 0o700


async def test_a_layer_waits_for_the_one_below_and_falls_with_it(tmp_path: Path) -> None:
    bus = MemoryBus()
    image = Image([BASE, tar(entry("etc/new"))])
    async with unpacker(tmp_path, bus) as running:
        image.store(running.content)
        order = asyncio.ensure_future(fails(running, image, 1))
        await until(lambda: running.parts.news.has(image.chain[0]))
        assert running.pool.idle.is_set(), "it holds no worker"
        await bus.signals.publish(f"layer.failed.default.{digest_token(image.chain[0])}", b"{}")
        assert (await order).concerns == "nobody"
        facts = await unpack_all(running, image.orders())
    assert [fact.reused for fact in facts] == [False, False]


async def test_repetition_finds_it_made(tmp_path: Path) -> None:
    image = Image([BASE])
    async with unpacker(tmp_path) as running:
        image.store(running.content)
        facts = await unpack_all(running, [*image.orders(), *image.orders()])
        facts += await unpack_all(running, image.orders())
        assert sorted(fact.reused for fact in facts) == [False, True, True]
        assert len({(fact.entries, fact.size, fact.diff_id) for fact in facts}) == 1


async def test_two_unpackers_of_one_store_share_the_orders(tmp_path: Path) -> None:
    image = Image([BASE, *(tar(entry(f"f{n}", content=b"%d" % n)) for n in range(9))])
    bus = MemoryBus()
    async with unpacker(tmp_path, bus) as one, unpacker(tmp_path, bus) as other, asyncio.TaskGroup() as tasks:
        image.store(one.content)
        workers = [
            tasks.create_task(Worker(bus, "default", {UnpackLayer: (each.unpack_layer, 3)}, give_up=each.give_up).run())
            for each in (one, other)
        ]
        for order in image.orders():
            await bus.orders.send(order)
        done = asyncio.Event()
        facts: list[Event] = []

        def apply(recorded: Recorded) -> None:
            assert recorded.event is not None
            facts.append(recorded.event)
            if len(facts) == 10:
                done.set()

        workers.append(tasks.create_task(bus.log.follow(apply)))
        await done.wait()
        for task in workers:
            task.cancel()
    assert all(isinstance(fact, LayerUnpacked) and not fact.reused for fact in facts)
    assert len(list((tmp_path / "snapshots").iterdir())) == 10


async def test_the_same_layer_by_two_unpackers_at_once(tmp_path: Path) -> None:
    image = Image([BASE])
    async with unpacker(tmp_path) as one, unpacker(tmp_path) as other:
        image.store(one.content)
        facts = await asyncio.gather(*(each.unpack_layer(image.orders()[0]) for each in (one, other)))
    assert sorted(fact.reused for each in facts for fact in each if isinstance(fact, LayerUnpacked)) == [False, True]


async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    bus = MemoryBus()
    image = Image([BASE])
    async with unpacker(tmp_path, bus, workers=1) as running:
        fetch = Fetch(running, bus, image)
        order = asyncio.ensure_future(running.unpack_layer(image.orders()[0]))
        await fetch.grow(1000)
        await until(lambda: running.pool.starving == 1)
        for pid in running.pool.processes():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(Retryable, match="died"):
            await order
        await fetch.grow()
        await fetch.end("fetched")
        await unpack_all(running, image.orders())


async def test_what_dead_processes_and_power_cuts_left_is_removed(tmp_path: Path) -> None:
    image = Image([BASE])
    open_store(tmp_path)
    (tmp_path / "staging" / "unpack-dead" / "1" / "snapshot" / "fs" / "deep").mkdir(parents=True)
    doubtful = Snapshots(tmp_path).directory(image.top)
    (doubtful / "fs").mkdir(parents=True)
    (doubtful / "snapshot.json").write_bytes(b"{}")
    (doubtful / "unsynced").write_text("an earlier boot")
    assert not Snapshots(tmp_path).has(image.top)
    async with unpacker(tmp_path) as running:
        assert not doubtful.exists()
        image.store(running.content)
        [fact] = await unpack_all(running, image.orders())
        assert not fact.reused
        await until(lambda: not (doubtful / "unsynced").exists())
        await until(lambda: not left_in_staging(tmp_path))
    assert boot_id()
    assert list((tmp_path / "staging").iterdir()) == []

"""The fetcher as a process of its own, on a real bus: orders in, facts out, and a kill in mid-transfer."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from pullonce.bus.ports import Bus
from pullonce.config import store_root
from pullonce.store.content import ContentStore
from schemas.events import BlobFailed, BlobFetched, Event, PullRecorded, PullResolved, PullUnresolved, StoreOpened
from schemas.oci import Digest
from schemas.orders import FetchBlob, ResolveReference
from schemas.progress import BlobProgress, PullProgress, decode
from schemas.subjects import progress_filter
from tests.integration.fetcher.conftest import FLIGHT, record_of
from tests.support.buses import LIMIT, NatsPlace, Reader, eventually
from tests.support.faulty import FaultyRegistry, answers, stalls_after
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer

BIG = layer(tar_of({"random": random.Random(3).randbytes(3_000_000)}), "plain")
IMAGE = image([BIG])


@asynccontextmanager
async def service(home: Path, nats_url: str, **further: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A fetcher process, with some further environment; killed at the end if it still runs."""
    environ = {**os.environ, "PULLONCE_HOME": str(home), "PULLONCE_NATS_URL": nats_url, "PULLONCE_ACK_WAIT": "1", **further}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.fetcher", env=environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def fact(reader: Reader, kind: type[Event], number: int = 1) -> Event:
    """The `number`th event of a type, once it is there."""

    def found() -> list[Event]:
        return [each.event for each in reader.read if isinstance(each.event, kind)]

    await reader.until(lambda _: len(found()) >= number)
    return found()[number - 1]


async def resolve(bus: Bus, reader: Reader, reference: str) -> PullResolved:
    await bus.orders.send(ResolveReference(reference=reference, flight=FLIGHT, opened=1, revision=1))
    resolved = await fact(reader, PullResolved)
    assert isinstance(resolved, PullResolved)
    return resolved


async def test_orders_become_facts(nats_url: str, tmp_path: Path) -> None:
    async with (
        FaultyRegistry(IMAGE) as registry,
        NatsPlace(nats_url).connect() as bus,
        Reader(bus) as reader,
        service(tmp_path, nats_url) as process,
    ):
        opened = await fact(reader, StoreOpened)
        content = ContentStore(store_root(tmp_path, "default"))
        assert isinstance(opened, StoreOpened) and opened.incarnation == content.incarnation
        resolved = await resolve(bus, reader, registry.reference)
        registry.plan("GET /v2/app/blobs/", answers(404, "BLOB_UNKNOWN", "gone"), times=2)
        for revision in (5, 6):
            await bus.orders.send(FetchBlob(blob=resolved.layers[0].blob, source=resolved.source, revision=revision))
            await fact(reader, BlobFailed if revision == 5 else BlobFetched)
        failed, fetched = await fact(reader, BlobFailed), await fact(reader, BlobFetched)
        assert isinstance(failed, BlobFailed) and isinstance(fetched, BlobFetched)
        assert (failed.code, failed.concerns, failed.revision, failed.source) == ("BLOB_UNKNOWN", "source", 5, resolved.source)
        assert (fetched.revision, fetched.reused, fetched.size) == (6, False, len(BIG.blob))
        await bus.orders.send(record_of(resolved))
        await fact(reader, PullRecorded)
        assert [record.reference for record in content.images.all()] == [registry.reference]
        await bus.orders.send(ResolveReference(reference=f"{registry.host}/app:2", flight=FLIGHT, opened=9, revision=8))
        unresolved = await fact(reader, PullUnresolved)
        assert isinstance(unresolved, PullUnresolved)
        assert (unresolved.code, unresolved.opened, unresolved.revision) == ("MANIFEST_UNKNOWN", 9, 8)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), LIMIT) == 0


async def test_a_fetcher_that_is_killed_costs_no_byte_twice(nats_url: str, tmp_path: Path) -> None:
    never = asyncio.Event()
    async with FaultyRegistry(IMAGE) as registry, NatsPlace(nats_url).connect() as bus, Reader(bus) as reader:
        content = ContentStore(store_root(tmp_path, "default"))
        growing = content.ingest_path(Digest(BIG.digest))
        started = asyncio.Event()

        async def stall() -> None:
            started.set()
            await never.wait()

        async with service(tmp_path, nats_url) as process:
            resolved = await resolve(bus, reader, registry.reference)
            registry.plan("GET /v2/app/blobs/", stalls_after(2_500_000, stall()))
            await bus.orders.send(FetchBlob(blob=resolved.layers[0].blob, source=resolved.source, revision=5))
            await asyncio.wait_for(started.wait(), LIMIT)
            process.kill()
            await process.wait()
        never.set()
        kept = growing.stat().st_size
        assert not content.has(Digest(BIG.digest))
        async with service(tmp_path, nats_url):
            fetched = await fact(reader, BlobFetched)
        assert isinstance(fetched, BlobFetched) and not fetched.reused
        assert registry.seen[-1].headers.get("Range") == (f"bytes={kept}-" if kept else None)
        assert content.blob_path(Digest(BIG.digest)).read_bytes() == BIG.blob
        assert not growing.exists()


async def test_more_layers_than_can_be_mounted_are_refused_before_one_is_fetched(nats_url: str, tmp_path: Path) -> None:
    """Whoever wants them packed may have them."""
    many = image([BIG] * 501)
    async with (
        FaultyRegistry(many) as registry,
        NatsPlace(nats_url).connect() as bus,
        Reader(bus) as reader,
        service(tmp_path, nats_url),
    ):
        order = ResolveReference(reference=registry.reference, flight=FLIGHT, opened=1, revision=1)
        await bus.orders.send(order)
        unresolved = await fact(reader, PullUnresolved)
        assert isinstance(unresolved, PullUnresolved)
        assert unresolved.code == "image.layers" and "500 on each other" in unresolved.message
        await bus.orders.send(replace(order, opened=2, revision=2, unpack=False))
        resolved = await fact(reader, PullResolved)
        assert isinstance(resolved, PullResolved) and len(resolved.layers) == 501


async def test_a_registry_that_restarts_is_waited_for(nats_url: str, tmp_path: Path) -> None:
    """Nobody listens there for three attempts at each step; then what was ordered goes on, and nothing has failed."""
    registry = RegistryServer(tmp_path / "registry").start()
    try:
        reference = registry.push("app", "1", IMAGE)
        async with (
            NatsPlace(nats_url).connect() as bus,
            Reader(bus) as reader,
            service(tmp_path, nats_url, PULLONCE_FRESH="0"),
        ):
            resolved = await resolve(bus, reader, reference)
            registry.stop()
            retrying: list[BlobProgress | PullProgress] = []

            def hear(_: str, body: bytes) -> None:
                told = decode(body)
                if isinstance(told, BlobProgress | PullProgress) and told.state == "retrying":
                    retrying.append(told)

            await bus.signals.subscribe(progress_filter("default"), hear)
            await bus.orders.send(FetchBlob(blob=resolved.layers[0].blob, source=resolved.source, revision=5))
            await bus.orders.send(ResolveReference(reference=reference, flight="f" * 16, opened=2, revision=2))

            async def both() -> bool:
                return all(sum(isinstance(each, kind) for each in retrying) >= 3 for kind in (BlobProgress, PullProgress))

            await eventually(both)
            registry.start()
            await fact(reader, BlobFetched)
            await fact(reader, PullResolved, 2)
            assert not [each for each in reader.read if isinstance(each.event, BlobFailed | PullUnresolved)]
    finally:
        registry.stop()

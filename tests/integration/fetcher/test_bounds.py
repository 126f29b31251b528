"""How many blobs come in at once, of one registry and in all, counted where they are asked for."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.bus.ports import Bus
from schemas.events import BlobFetched, PullResolved
from schemas.oci import Digest
from schemas.orders import FetchBlob, ResolveReference
from tests.integration.fetcher.conftest import FLIGHT
from tests.integration.fetcher.test_service import service
from tests.support.buses import LIMIT, NatsPlace, Reader
from tests.support.faulty import FaultyRegistry
from tests.support.images import Image, image, layer, tar_of

MANY = 15


def picture(first: int, layers: int) -> Image:
    """An image of small layers; other numbers make other blobs."""
    numbers = range(first, first + layers)
    return image([layer(tar_of({"file": random.Random(each).randbytes(2_000)}), "plain") for each in numbers])


class Held:
    """Holds back what a registry answers from now on, and counts how many requests wait."""

    def __init__(self, registry: FaultyRegistry) -> None:
        self.waiting = self.most = 0
        self.release = asyncio.Event()
        self._news = asyncio.Condition()
        registry.guard = self._guard

    async def until(self, count: int) -> None:
        """Return when so many wait."""
        async with asyncio.timeout(LIMIT), self._news:
            await self._news.wait_for(lambda: self.waiting >= count)

    async def _guard(self, _: web.Request) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        async with self._news:
            self._news.notify_all()
        await self.release.wait()
        self.waiting -= 1


async def resolve(bus: Bus, reader: Reader, registry: FaultyRegistry) -> PullResolved:
    """Have the registry's image resolved."""

    def found() -> list[PullResolved]:
        events = [each.event for each in reader.read]
        return [event for event in events if isinstance(event, PullResolved) and event.reference == registry.reference]

    opened = len(reader.read) + 1  # facts of one flight and revision would be one
    await bus.orders.send(ResolveReference(reference=registry.reference, flight=FLIGHT, opened=opened, revision=opened))
    await reader.until(lambda _: bool(found()))
    return found()[-1]


async def order(bus: Bus, resolved: PullResolved) -> set[Digest]:
    """Order all layers of an image; their digests."""
    for each in resolved.layers:
        await bus.orders.send(FetchBlob(blob=each.blob, source=resolved.source, revision=5))
    return {each.blob.digest for each in resolved.layers}


async def fetched(reader: Reader, digests: set[Digest]) -> None:
    """Return when all of these are there."""
    await reader.until(lambda _: digests <= {each.event.digest for each in reader.read if isinstance(each.event, BlobFetched)})


@pytest.mark.parametrize(
    ("in_all", "of_one", "most"), [(14, 14, 14), (3, 14, 3), (14, 2, 2)], ids=["many", "few in all", "few of one registry"]
)
async def test_so_many_come_in_at_once_and_no_more(nats_url: str, tmp_path: Path, in_all: int, of_one: int, most: int) -> None:
    bounds = {"PULLONCE_FETCHES": str(in_all), "PULLONCE_FETCHES_PER_REGISTRY": str(of_one)}
    async with (
        FaultyRegistry(picture(0, MANY)) as registry,
        FaultyRegistry(picture(100, 1)) as other,
        NatsPlace(nats_url).connect() as bus,
        Reader(bus) as reader,
        service(tmp_path, nats_url, **bounds),
    ):
        resolved = await resolve(bus, reader, registry)
        held = Held(registry)
        digests = await order(bus, resolved)
        await held.until(most)
        await resolve(bus, reader, other)  # what was ordered before that has been taken up by now, if it may be
        held.release.set()
        await fetched(reader, digests)
        assert held.most == most


async def test_a_registry_that_sends_nothing_holds_no_other_up(nats_url: str, tmp_path: Path) -> None:
    bounds = {"PULLONCE_FETCHES": "2", "PULLONCE_FETCHES_PER_REGISTRY": "1"}
    async with (
        FaultyRegistry(picture(0, 6)) as stuck,
        FaultyRegistry(picture(100, 6)) as other,
        NatsPlace(nats_url).connect() as bus,
        Reader(bus) as reader,
        service(tmp_path, nats_url, **bounds),
    ):
        first, second = await resolve(bus, reader, stuck), await resolve(bus, reader, other)
        held = Held(stuck)
        of_the_first = await order(bus, first)
        await held.until(1)
        await fetched(reader, await order(bus, second))
        assert held.most == 1
        held.release.set()
        await fetched(reader, of_the_first)

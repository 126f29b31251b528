"""Coordinators share the stores, take over from the dead, and hand over when they are told to stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from pullonce.bus.nats.bus import NatsBus, connect
from pullonce.bus.ports import Bus, Delivery
from pullonce.config import BusSettings
from schemas.events import PullRequested
from schemas.orders import ResolveReference
from services.coordinator.handlers import Coordinator
from services.coordinator.leases import EVERY
from tests.integration.coordinator.test_start import coordinating
from tests.support.buses import LIMIT, eventually, running

STORES = [f"s{number}" for number in range(24)]
LEASE = 1.0


@asynccontextmanager
async def bus_of(url: str) -> AsyncIterator[NatsBus]:
    async with connect(BusSettings(url=url, name="test"), patience=LIMIT) as bus:
        yield bus


class Resolvers:
    """A fetcher of each store that takes what is to be resolved, and does nothing about it."""

    def __init__(self) -> None:
        self.orders: Counter[str] = Counter()

    @asynccontextmanager
    async def serving(self, bus: Bus) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for store in STORES:
                await stack.enter_async_context(running(bus.orders.receive("resolve.reference", store, self.take, limit=9)))
            yield

    async def take(self, delivery: Delivery) -> None:
        assert isinstance(delivery.order, ResolveReference)
        self.orders[f"{delivery.order.store} {delivery.order.reference}"] += 1
        await asyncio.Event().wait()


async def ask(bus: Bus, image: str) -> None:
    for store in STORES:
        await bus.log.append(PullRequested(store=store, reference=f"registry.example/{image}:1"))


async def all_ordered(resolvers: Resolvers, images: list[str]) -> None:
    wanted = {f"{store} registry.example/{image}:1" for store in STORES for image in images}

    async def there() -> bool:
        return set(resolvers.orders) == wanted

    await eventually(there)
    assert set(resolvers.orders.values()) == {1}, "each was ordered once"


async def share(*coordinators: Coordinator) -> None:
    """Wait until all partitions are divided evenly between some coordinators."""

    async def even() -> bool:
        owned = [each.leases.owned for each in coordinators]
        sizes = [len(each) for each in owned]
        return sum(sizes) == len(EVERY) and max(sizes) - min(sizes) <= 1 and frozenset().union(*owned) == EVERY

    await eventually(even)


async def test_two_share_the_stores_and_one_that_stops_hands_over(nats_url: str) -> None:
    resolvers = Resolvers()
    async with (
        bus_of(nats_url) as bus,
        bus_of(nats_url) as other,
        bus_of(nats_url) as third,
        resolvers.serving(third),
        coordinating(bus, "one") as one,
    ):
        await share(one)
        await ask(third, "a")
        await all_ordered(resolvers, ["a"])
        async with coordinating(other, "two") as two:
            await share(one, two)
            await ask(third, "b")
            await all_ordered(resolvers, ["a", "b"])
        await ask(third, "c")
        await share(one)
        await all_ordered(resolvers, ["a", "b", "c"])


async def test_another_takes_over_from_one_that_dies(nats_url: str) -> None:
    """It says nothing any more: its connection is gone in the midst of what it did."""
    resolvers = Resolvers()
    async with (
        bus_of(nats_url) as bus,
        bus_of(nats_url) as third,
        resolvers.serving(third),
        coordinating(bus, "one", lease=LEASE) as one,
    ):
        async with AsyncExitStack() as life:
            dying = await life.enter_async_context(bus_of(nats_url))
            two = Coordinator(dying, "two", lease=LEASE)
            task = asyncio.ensure_future(two.run())
            await share(one, two)
            await ask(third, "a")
            await life.aclose()
            await asyncio.gather(task, return_exceptions=True)
        await ask(third, "b")
        await all_ordered(resolvers, ["a", "b"])
        assert one.leases.owned == EVERY

"""The bus server is killed (SIGKILL), restarted, or freezes while everything runs: nothing is lost, nothing doubled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pullonce.bus.nats.asked import PATIENCE
from pullonce.bus.ports import Bus, ClaimEntry, Delivery
from pullonce.errors import Duplicate, LogShortened, WrongRevision
from pullonce.worker.worker import Worker
from schemas.events import BlobFetched, Event
from schemas.orders import FetchBlob
from schemas.routing import event_id, event_subject
from tests.support.buses import LIMIT, NatsPlace, Reader, digest, fetch, fetched, running, soon
from tests.support.nats_server import NatsServer

ROUNDS = 3
STEPS = 10
"""Done on a server before it is killed, at least."""


async def disturb(server: NatsServer, done: asyncio.Semaphore) -> None:
    """Kill and restart it a few times, each time when a few more steps are done."""
    for _ in range(ROUNDS):
        for _ in range(STEPS):
            await done.acquire()
        await asyncio.to_thread(server.restart)


async def until_disturbed(server: NatsServer, step: Callable[[int], Awaitable[Any]]) -> int:
    """Repeat a step for as long as the server is being disturbed; returns how often it was done."""
    done = asyncio.Semaphore(0)
    trouble = asyncio.ensure_future(disturb(server, done))
    count = 0
    async with asyncio.timeout(LIMIT * 2):
        while not trouble.done():
            await step(count)
            done.release()
            count += 1
    await trouble
    return count


async def test_appends_and_followers_miss_nothing(nats_server: NatsServer) -> None:
    place = NatsPlace(nats_server.url)
    async with place.connect() as writer, place.connect() as bystander, Reader(bystander) as reader:

        async def step(count: int) -> None:
            numbers = range(count * 20, count * 20 + 20)
            await asyncio.gather(*(writer.log.append(fetched(number)) for number in numbers))

        steps = await until_disturbed(nats_server, step)
        await reader.until(lambda r: len(r.read) == steps * 20)
        assert reader.sequences == list(range(1, steps * 20 + 1))
        assert {each.event.digest for each in reader.read} == {digest(number) for number in range(steps * 20)}
        assert await writer.log.last_sequence() == steps * 20


async def test_a_follower_hears_at_once_after_a_restart(nats_server: NatsServer) -> None:
    place = NatsPlace(nats_server.url)
    async with place.connect() as bus, Reader(bus) as reader:
        for number in range(1, 4):
            await asyncio.to_thread(nats_server.restart)
            await bus.log.append(fetched(number))
            await reader.until(lambda r, number=number: len(r.read) == number)


async def test_a_worker_carries_out_every_order(nats_server: NatsServer) -> None:
    place = NatsPlace(nats_server.url)

    async def handle(order: FetchBlob) -> list[Event]:
        return [BlobFetched(digest=order.blob.digest, size=order.blob.size, revision=order.revision)]

    def give_up(order: FetchBlob, failure: Exception) -> Event:
        raise AssertionError(failure)

    async with place.connect() as one, place.connect() as two, place.connect() as sender, Reader(sender) as reader:
        workers = [Worker(bus, "default", {FetchBlob: (handle, 8)}, give_up=give_up) for bus in (one, two)]
        async with running(workers[0].run()), running(workers[1].run()):

            async def step(count: int) -> None:
                try:
                    await sender.orders.send(fetch(count))
                except Duplicate:
                    raise AssertionError(f"order {count} was never sent before") from None

            steps = await until_disturbed(nats_server, step)
            await reader.until(lambda r: len(r.read) >= steps)
        assert sorted(each.event.size for each in reader.read) == list(range(steps))


async def test_a_receiver_takes_orders_at_once_after_a_restart(nats_server: NatsServer) -> None:
    taken: asyncio.Queue[Delivery] = asyncio.Queue()

    async def take(delivery: Delivery) -> None:
        await delivery.ack()
        taken.put_nowait(delivery)

    place = NatsPlace(nats_server.url, ack_wait=600.0)  # so that nothing is redelivered within this test
    async with (
        place.connect() as bus,
        place.connect() as sender,
        running(bus.orders.receive("fetch.blob", "default", take, limit=2)),
    ):
        for number in range(6):
            await asyncio.to_thread(nats_server.restart)
            await sender.orders.send(fetch(number))
            while (await soon(taken.get())).order != fetch(number):
                pass  # one whose acknowledgement died with the server comes once more


async def test_every_claim_has_one_winner_who_knows_it(nats_server: NatsServer) -> None:
    place = NatsPlace(nats_server.url)
    async with place.connect() as one, place.connect() as two:

        async def claim(bus: Bus, key: str, value: bytes) -> int | None:
            try:
                return await bus.claims.put(key, value, expected=0, ttl=600)
            except WrongRevision:
                return None

        async def step(count: int) -> None:
            key = f"blob.default.{count}"
            outcomes = await asyncio.gather(claim(one, key, b"one"), claim(two, key, b"two"))
            entry = await one.claims.get(key)
            assert entry in [ClaimEntry(v, o) for v, o in zip((b"one", b"two"), outcomes, strict=True) if o is not None]
            assert outcomes.count(None) == 1

        await until_disturbed(nats_server, step)


async def test_a_frozen_server_only_delays(nats_server: NatsServer) -> None:
    place = NatsPlace(nats_server.url)
    async with place.connect() as bus, Reader(bus) as reader:
        await bus.log.append(fetched(1))
        nats_server.pause()
        writes = [asyncio.ensure_future(bus.log.append(fetched(number))) for number in (2, 3)]
        with pytest.raises(TimeoutError):  # a request behind them: by then their outcome is unclear
            again = fetched(2)
            await bus.log.offer(again, subject=event_subject(again), message_id=event_id(again), timeout=PATIENCE)
        assert not any(write.done() for write in writes)
        nats_server.resume()
        assert await soon(asyncio.gather(*writes)) == [2, 3]
        await reader.until(lambda r: len(r.read) == 3)
        assert reader.sequences == [1, 2, 3]


async def test_a_log_that_lost_its_tail_is_noticed(nats_server: NatsServer) -> None:
    place = NatsPlace(nats_server.url)
    async with place.connect() as bus:
        reader = Reader(bus)
        await bus.log.append_all([fetched(number) for number in range(5)])
        await reader.until(lambda r: len(r.read) == 5)
        nats_server.kill()
        nats_server.wipe()
        await asyncio.to_thread(nats_server.start)
        with pytest.raises(LogShortened):
            await soon(reader.task)

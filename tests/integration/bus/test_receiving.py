"""Orders that wait in a worker for a slot of their kind: they stay its own, and each begins once."""

import asyncio
import threading

import nats
import pytest
from nats.js.api import ConsumerInfo

from pullonce.bus.nats.delivery import NatsDelivery
from pullonce.bus.nats.receive import Receiver
from pullonce.bus.ports import Bus, Delivery
from pullonce.worker.worker import Worker
from schemas.events import Event
from schemas.orders import FetchBlob, Order, RecordImage, ResolveReference
from tests.support.buses import ACK_WAIT, NatsPlace, ended, eventually, fetch, leases_pass, running, soon
from tests.support.chaos_line import Line
from tests.support.nats_server import NatsServer


class OneSlot:
    """Takes orders one at a time; each is acknowledged at once and keeps the slot until the next is asked for."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Delivery] = asyncio.Queue()
        self.more = asyncio.Semaphore(0)

    async def take(self, delivery: Delivery) -> None:
        await delivery.ack()
        self.begun.put_nowait(delivery)
        await self.more.acquire()

    async def next(self) -> Delivery:
        return await soon(self.begun.get())


async def nothing(delivery: Delivery) -> None:
    await delivery.ack()


async def test_what_waits_is_kept_while_kinds_come_and_go(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    slot, telling, go = OneSlot(), asyncio.Event(), asyncio.Event()
    told = NatsDelivery.in_progress

    async def slowly(delivery: NatsDelivery) -> None:
        """As where the connection's buffer is full."""
        telling.set()
        await go.wait()
        await told(delivery)

    monkeypatch.setattr(NatsDelivery, "in_progress", slowly)
    async with (
        NatsPlace(nats_server.url).connect() as bus,
        running(bus.orders.receive("fetch.blob", "default", slot.take, limit=1)),
        running(bus.orders.receive("resolve.reference", "default", nothing, limit=1)),
    ):
        for number in (1, 2):
            await bus.orders.send(fetch(number))
        assert (await slot.next()).order == fetch(1)
        await soon(telling.wait())
        async with running(bus.orders.receive("record.image", "default", nothing, limit=1)):
            await asyncio.sleep(0)
            go.set()
            await leases_pass(bus, 3)
            slot.more.release()
            second = await slot.next()
            # The one word that was held up may have come late; those after it did not.
            assert second.order == fetch(2) and second.attempt <= 2


async def test_a_receiver_that_cannot_keep_what_waits_ends(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = OneSlot()

    async def fails(delivery: NatsDelivery) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(NatsDelivery, "in_progress", fails)
    async with NatsPlace(nats_server.url).connect() as bus:
        serving = [
            asyncio.ensure_future(bus.orders.receive("fetch.blob", "default", slot.take, limit=1)),
            asyncio.ensure_future(bus.orders.receive("resolve.reference", "default", nothing, limit=1)),
        ]
        for number in (1, 2):
            await bus.orders.send(fetch(number))
        for each in serving:
            with pytest.raises(ZeroDivisionError):
                await soon(each)


async def test_what_waits_and_is_handed_out_again_begins_once(nats_server: NatsServer) -> None:
    slot = OneSlot()
    async with (
        NatsPlace(nats_server.url).connect() as bus,
        running(bus.orders.receive("fetch.blob", "default", slot.take, limit=1)),
        running(bus.orders.receive("resolve.reference", "default", nothing, limit=1)),
    ):
        for number in (1, 2):
            await bus.orders.send(fetch(number))
        assert (await slot.next()).order == fetch(1)
        threading.Event().wait(2 * ACK_WAIT)  # the whole process stands still
        await leases_pass(bus)
        await bus.orders.send(fetch(3))
        for number in (2, 3):
            slot.more.release()
            assert (await slot.next()).order == fetch(number)
        assert slot.begun.empty()


# -- told to stop; nobody's deadline passes here ----------------------------------------------------------------------------

FOR_EVER = 600.0


class Stopping:
    """Orders that take a while to stop, and are told to once."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[FetchBlob] = asyncio.Queue()
        self.stopped: list[FetchBlob] = []

    async def handle(self, order: FetchBlob) -> list[Event]:
        self.begun.put_nowait(order)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            self.stopped.append(order)
        return []

    async def run(self, bus: Bus) -> None:
        """As a fetcher does: several kinds of orders."""
        table = {FetchBlob: (self.handle, 3), ResolveReference: (self.handle, 1), RecordImage: (self.handle, 1)}
        await Worker(bus, "default", table, give_up=never).run()


def never(order: Order, failure: object) -> Event:
    raise AssertionError("nothing fails here")


async def consumer(nats_server: NatsServer) -> ConsumerInfo:
    client = await nats.connect(nats_server.url)
    try:
        return await client.jetstream().consumer_info("ORDERS", "fetcher-default")
    finally:
        await client.close()


async def test_a_worker_that_stops_hands_on_what_is_still_on_its_way_to_it(nats_server: NatsServer) -> None:
    work, server = Stopping(), nats_server
    with Line(server.url.removeprefix("nats://")) as line:
        async with NatsPlace(server.url, FOR_EVER).connect() as bus:
            async with NatsPlace(f"nats://{line.host}", FOR_EVER).connect() as behind:
                serving = asyncio.ensure_future(work.run(behind))
                await bus.orders.send(fetch(1))
                assert await soon(work.begun.get()) == fetch(1)
                line.die()
                await bus.orders.send(fetch(2))

                async def is_on_its_way() -> bool:
                    return (await consumer(server)).num_ack_pending == 2

                await eventually(is_on_its_way)
                serving.cancel()
                await eventually(lambda: holds(bool(work.stopped)))
                line.heal()
                await ended(serving)
            assert work.stopped == [fetch(1)]
            heir = OneSlot()
            async with running(bus.orders.receive("fetch.blob", "default", heir.take, limit=2)):
                assert {(await heir.next()).order.blob.size for _ in range(2)} == {1, 2}


async def test_what_several_workers_give_back_while_all_of_them_stop_is_there_for_the_next(nats_server: NatsServer) -> None:
    work = Stopping()
    place = NatsPlace(nats_server.url, FOR_EVER)
    async with place.connect() as bus:
        for _ in range(5):
            async with place.connect() as one, place.connect() as other:
                both = [asyncio.ensure_future(work.run(each)) for each in (one, other)]
                for number in range(20):
                    await bus.orders.send(fetch(number))
                await soon(work.begun.get())
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
            heir = OneSlot()
            async with running(bus.orders.receive("fetch.blob", "default", heir.take, limit=20)):
                assert {(await heir.next()).order.blob.size for _ in range(20)} == set(range(20))
            work = Stopping()


async def test_an_order_that_is_cancelled_before_its_first_step_is_handed_on(nats_server: NatsServer) -> None:
    first = asyncio.Event()

    async def take(delivery: Delivery) -> None:
        await first.wait()
        await delivery.ack()
        serving.cancel()  # the next one gets this place in the same moment

    async with NatsPlace(nats_server.url, FOR_EVER).connect() as bus:
        resolving = asyncio.ensure_future(bus.orders.receive("resolve.reference", "default", nothing, limit=1))
        serving = asyncio.ensure_future(bus.orders.receive("fetch.blob", "default", take, limit=1))
        for number in (1, 2):
            await bus.orders.send(fetch(number))

        async def both_are_here() -> bool:
            return (await consumer(nats_server)).num_ack_pending == 2

        await eventually(both_are_here)
        first.set()
        await ended(serving)
        heir = OneSlot()
        async with running(bus.orders.receive("fetch.blob", "default", heir.take, limit=1)):
            assert (await heir.next()).order == fetch(2)
        await ended(resolving)


async def test_what_is_put_in_order_is_not_broken_off_by_being_told_twice(nats_server: NatsServer) -> None:
    work = Stopping()
    async with NatsPlace(nats_server.url, FOR_EVER).connect() as bus:
        serving = asyncio.ensure_future(work.run(bus))
        await bus.orders.send(fetch(1))
        await soon(work.begun.get())
        while not serving.done():
            serving.cancel()
            await asyncio.sleep(0.005)
    assert work.stopped == [fetch(1)]


async def holds(true: bool) -> bool:
    return true


async def test_a_server_that_is_restarted_makes_each_consumer_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it ends before it does. Thousands of consumers take it long enough to make once."""
    made: list[str] = []
    make = Receiver._make_consumer

    async def counted(self: Receiver) -> None:
        made.append(self._durable)
        await make(self)

    monkeypatch.setattr(Receiver, "_make_consumer", counted)
    slot = OneSlot()
    async with (
        NatsPlace(nats_server.url, FOR_EVER).connect() as bus,
        running(bus.orders.receive("fetch.blob", "default", slot.take, limit=1)),
    ):
        connected = [True]
        bus.signals.on_reconnect(lambda: connected.append(True))
        for number in (1, 2, 3):
            await bus.orders.send(fetch(number))
            assert (await slot.next()).order == fetch(number)
            assert len(made) <= len(connected), "once for each connection"
            slot.more.release()
            await asyncio.to_thread(nats_server.stop)
            await asyncio.to_thread(nats_server.start)

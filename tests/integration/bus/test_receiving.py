"""Orders that wait in a worker for a slot of their kind: they stay its own, and each begins once."""

import asyncio
import threading

import pytest

from pullonce.bus.nats.receive import NatsDelivery
from pullonce.bus.ports import Delivery
from tests.support.buses import ACK_WAIT, NatsPlace, fetch, leases_pass, running, soon
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

"""The contract of `bus.Orders`."""

import asyncio

import pytest

from pullonce.bus.ports import Bus, Delivery
from pullonce.errors import Duplicate
from schemas.routing import order_subject
from schemas.subjects import blob_key
from tests.support.buses import ACK_WAIT, Place, ended, eventually, fetch, leases_pass, running, soon

KIND, STORE = "fetch.blob", "default"


class Hands:
    """Takes deliveries and keeps them until the test says otherwise."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Delivery] = asyncio.Queue()
        self.most = self.busy = 0
        self._gates: dict[int, asyncio.Event] = {}

    async def take(self, delivery: Delivery) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        gate = self._gates[id(delivery)] = asyncio.Event()
        self.taken.put_nowait(delivery)
        try:
            await gate.wait()
        finally:
            self.busy -= 1

    def let_go(self, delivery: Delivery) -> None:
        self._gates[id(delivery)].set()

    async def next(self) -> Delivery:
        return await soon(self.taken.get())


def serve(bus: Bus, hands: Hands, limit: int = 10):
    return running(bus.orders.receive(KIND, STORE, hands.take, limit=limit))


async def test_an_order_reaches_one_receiver(place: Place) -> None:
    hands = Hands()
    async with place.connect() as one, place.connect() as other, serve(one, hands), serve(other, hands):
        for number in range(20):
            await one.orders.send(fetch(number))
        deliveries = [await hands.next() for _ in range(20)]
        assert sorted(d.order.blob.size for d in deliveries) == list(range(20))
        assert {d.attempt for d in deliveries} == {1}
        for delivery in deliveries:
            await delivery.ack()
        assert hands.taken.empty()


async def test_orders_sent_before_anybody_listens_wait(place: Place) -> None:
    hands = Hands()
    async with place.connect() as bus:
        await bus.orders.send(fetch(1))
        async with serve(bus, hands):
            assert (await hands.next()).order == fetch(1)


async def test_a_withdrawn_order_is_not_delivered_any_more(place: Place) -> None:
    hands = Hands()
    async with place.connect() as bus:
        for number in (1, 2):
            await bus.orders.send(fetch(number))
        await bus.orders.withdraw(fetch(1))
        await bus.orders.withdraw(fetch(3))
        async with serve(bus, hands):
            assert (await hands.next()).order == fetch(2)
            await bus.orders.send(fetch(1))
            assert (await hands.next()).order == fetch(1)
            await bus.orders.withdraw(fetch(2))
            await bus.orders.send(fetch(2))
            assert (await hands.next()).attempt == 1


async def test_an_order_is_out_until_it_is_acknowledged_or_withdrawn(place: Place) -> None:
    hands = Hands()
    async with place.connect() as bus:
        subject = order_subject(fetch(1))
        assert not await bus.orders.is_out(subject)
        for number in (1, 2):
            await bus.orders.send(fetch(number))
        assert await bus.orders.is_out(subject)
        assert not await bus.orders.is_out(order_subject(fetch(1, revision=7))), "another order of the same key"
        await bus.orders.withdraw(fetch(2))
        assert not await bus.orders.is_out(order_subject(fetch(2)))
        async with serve(bus, hands):
            delivery = await hands.next()
            assert await bus.orders.is_out(subject), "it is running"
            await delivery.ack()

            async def gone() -> bool:
                return not await bus.orders.is_out(subject)

            await eventually(gone)


async def test_the_same_order_is_refused_until_it_is_acknowledged(place: Place) -> None:
    hands = Hands()
    async with place.connect() as bus:
        await bus.orders.send(fetch(1))
        with pytest.raises(Duplicate):
            await bus.orders.send(fetch(1))
        async with serve(bus, hands):
            delivery = await hands.next()
            with pytest.raises(Duplicate):
                await bus.orders.send(fetch(1))
            await bus.orders.send(fetch(1, revision=2))
            assert (await hands.next()).order == fetch(1, revision=2)
            await delivery.ack()
            await bus.claims.put(blob_key(STORE, "x"), b"a round trip behind the ack", expected=0)
            await bus.orders.send(fetch(1))
            assert (await hands.next()).order == fetch(1)


async def test_no_more_than_limit_run_at_a_time(place: Place) -> None:
    hands = Hands()
    async with place.connect() as bus, serve(bus, hands, limit=3):
        for number in range(30):
            await bus.orders.send(fetch(number))
        for _ in range(30):
            delivery = await hands.next()
            await delivery.ack()
            hands.let_go(delivery)
        assert hands.most <= 3


async def test_nak_brings_it_back_with_a_higher_attempt(place: Place) -> None:
    hands = Hands()
    async with place.connect() as bus, serve(bus, hands):
        await bus.orders.send(fetch(1))
        for attempt in (1, 2, 3):
            delivery = await hands.next()
            assert delivery.attempt == attempt
            await delivery.nak(delay=0.05 * (attempt - 1))
            hands.let_go(delivery)
        assert (await hands.next()).attempt == 4


async def test_silence_gives_it_to_another(place: Place) -> None:
    silent, other = Hands(), Hands()
    async with place.connect() as one, place.connect() as two, serve(one, silent):
        await one.orders.send(fetch(1))
        await silent.next()
        async with serve(two, other, limit=1):
            # Either may get it now; the silent one has slots too.
            waiting = [asyncio.ensure_future(hands.taken.get()) for hands in (silent, other)]
            done, rest = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result().attempt for task in done] == [2]
            for task in rest:
                task.cancel()


async def test_in_progress_keeps_it(place: Place) -> None:
    hands, other = Hands(), Hands()

    async def keep(delivery: Delivery) -> None:
        while True:
            await delivery.in_progress()
            await asyncio.sleep(ACK_WAIT / 4)

    async with place.connect() as one, place.connect() as two, serve(one, hands, limit=1):
        await one.orders.send(fetch(1))
        delivery = await hands.next()
        async with serve(two, other), running(keep(delivery)):
            await leases_pass(two)
            await two.orders.send(fetch(2))
            assert (await other.next()).order == fetch(2), "the first that this one hears of"
        assert hands.taken.empty()
        await delivery.ack()


async def test_a_receiver_that_stops_takes_nothing_with_it(place: Place) -> None:
    hands, heir = Hands(), Hands()
    async with place.connect() as bus:
        async with serve(bus, hands, limit=5) as task:
            await bus.orders.send(fetch(0))
            first = await hands.next()
            await first.ack()
            await ended(task)
            assert hands.busy == 0
        for number in range(1, 6):
            await bus.orders.send(fetch(number))
        async with serve(bus, heir):
            deliveries = [await heir.next() for _ in range(5)]
        assert {d.attempt for d in deliveries} == {1}
        assert hands.taken.empty()


async def test_stores_and_kinds_do_not_mix(place: Place) -> None:
    hands, elsewhere = Hands(), Hands()
    async with (
        place.connect() as bus,
        serve(bus, hands),
        running(bus.orders.receive("unpack.layer", STORE, elsewhere.take, limit=1)),
        running(bus.orders.receive(KIND, "other", elsewhere.take, limit=1)),
    ):
        await bus.orders.send(fetch(1))
        assert (await hands.next()).order == fetch(1)
        assert elsewhere.taken.empty()


async def test_an_error_of_deliver_ends_the_receiver(place: Place) -> None:
    async def refuse(delivery: Delivery) -> None:
        await delivery.ack()
        raise ZeroDivisionError

    async with place.connect() as bus:
        await bus.orders.send(fetch(1))
        with pytest.raises(ZeroDivisionError):
            await soon(bus.orders.receive(KIND, STORE, refuse, limit=1))


async def test_what_is_no_order_is_removed_and_does_not_stop_the_rest(place: Place) -> None:
    hands = Hands()
    async with place.connect() as bus, serve(bus, hands, limit=1):
        await bus.signals.publish(order_subject(fetch(1)), b"nonsense")
        await bus.orders.send(fetch(2))
        assert (await hands.next()).order == fetch(2)

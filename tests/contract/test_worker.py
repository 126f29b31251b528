"""The worker's promises, on either bus."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from pullonce.bus.ports import Bus
from pullonce.errors import Permanent, Retryable
from pullonce.worker.worker import BRIEF, Failure, Worker, attempts_for, backoff
from schemas.events import BlobFailed, BlobFetched, Event, PullFailed
from schemas.orders import FetchBlob, ResolveReference
from schemas.routing import order_subject
from tests.support.buses import Place, Reader, digest, ended, eventually, fetch, leases_pass, running, soon

Handler = Callable[[FetchBlob], Awaitable[Sequence[Event]]]


def done(order: FetchBlob) -> list[Event]:
    return [BlobFetched(digest=order.blob.digest, size=order.blob.size, revision=order.revision)]


def give_up(order: FetchBlob, failure: Failure) -> Event:
    return BlobFailed(
        digest=order.blob.digest,
        revision=order.revision,
        source=order.source,
        concerns=failure.concerns,
        code=failure.code,
        message=str(failure),
    )


def worker(bus: Bus, handler: Handler, limit: int = 10, **more: Any) -> Worker:
    return Worker(bus, "default", {FetchBlob: (handler, limit)}, give_up=give_up, **more)


async def queue_is_empty(bus: Bus) -> None:
    """The order can be sent again, so it had been acknowledged."""

    async def gone() -> bool:
        try:
            await bus.orders.send(fetch(1))
        except Exception:
            return False
        return True

    await eventually(gone)


async def test_facts_are_stored_and_the_order_is_gone(place: Place) -> None:
    async def handle(order: FetchBlob) -> list[Event]:
        return done(order)

    async with place.connect() as bus, Reader(bus) as reader:
        async with running(worker(bus, handle).run()):
            for number in range(50):
                await bus.orders.send(fetch(number))
            await reader.until(lambda r: len(r.read) == 50)
            await queue_is_empty(bus)
        assert {each.event.digest for each in reader.read} == {digest(number) for number in range(50)}


@pytest.mark.parametrize("error", [Retryable("later", code="x.y", after=0.01), ZeroDivisionError("a defect")])
async def test_what_may_pass_is_tried_again(place: Place, error: Exception) -> None:
    calls: list[int] = []
    told: list[tuple[str, str]] = []

    async def handle(order: FetchBlob) -> list[Event]:
        calls.append(len(calls))
        if len(calls) < 2:
            raise error
        return done(order)

    def retrying(order: FetchBlob, failure: Failure, delay: float) -> None:
        told.append((order_subject(order), failure.code))

    async with place.connect() as bus, Reader(bus) as reader, running(worker(bus, handle, retrying=retrying).run()):
        await bus.orders.send(fetch(1))
        await reader.until(lambda r: len(r.read) == 1)
        assert reader.read[0].event == done(fetch(1))[0]
    assert told == [(order_subject(fetch(1)), "x.y" if isinstance(error, Retryable) else "internal")]


@pytest.mark.parametrize(
    "error, calls, code, concerns",
    [
        (Retryable("later", code="x.y", after=0.0, concerns="source"), 3, "x.y", "source"),
        (Permanent("never", code="BLOB_UNKNOWN", concerns="credential"), 1, "BLOB_UNKNOWN", "credential"),
    ],
)
async def test_what_does_not_pass_becomes_a_fact(place: Place, error: Exception, calls: int, code: str, concerns: str) -> None:
    called: list[FetchBlob] = []

    async def handle(order: FetchBlob) -> list[Event]:
        called.append(order)
        raise error

    async with place.connect() as bus, Reader(bus) as reader, running(worker(bus, handle, attempts=3).run()):
        await bus.orders.send(fetch(1))
        await reader.until(lambda r: len(r.read) == 1)
        assert reader.read[0].event == give_up(fetch(1), error)  # type: ignore[arg-type]
        assert (reader.read[0].event.code, reader.read[0].event.concerns) == (code, concerns)
        assert len(called) == calls
        await queue_is_empty(bus)


async def test_what_will_hardly_pass_gets_a_few_attempts_of_many(place: Place) -> None:
    called: list[FetchBlob] = []

    async def handle(order: FetchBlob) -> list[Event]:
        called.append(order)
        raise Retryable("nobody knows that name", code="x.y", after=0.0, brief=True)

    async with place.connect() as bus, Reader(bus) as reader, running(worker(bus, handle, attempts=50).run()):
        await bus.orders.send(fetch(1))
        await reader.until(lambda r: len(r.read) == 1)
        assert len(called) == BRIEF


async def test_a_fact_too_large_for_the_bus_is_a_failure_and_no_loop(place: Place) -> None:
    async def handle(order: FetchBlob) -> list[Event]:
        return [give_up(order, Permanent("x" * 600_000, code="x"))]

    async with place.connect() as bus, Reader(bus) as reader, running(worker(bus, handle).run()):
        await bus.orders.send(fetch(1))
        await reader.until(lambda r: len(r.read) == 1)
        assert reader.read[0].event.code == "message.too_large"


async def test_a_long_order_is_not_given_to_another(place: Place) -> None:
    calls: list[FetchBlob] = []
    begun, over = asyncio.Event(), asyncio.Event()

    async def handle(order: FetchBlob) -> list[Event]:
        calls.append(order)
        begun.set()
        await over.wait()
        return done(order)

    async with (
        place.connect() as one,
        place.connect() as other,
        Reader(one) as reader,
        running(worker(one, handle).run()),
        running(worker(other, handle).run()),
    ):
        await one.orders.send(fetch(1))
        await soon(begun.wait())
        await leases_pass(one)
        over.set()
        await reader.until(lambda r: len(r.read) == 1)
    assert len(calls) == 1


async def test_a_worker_that_stops_gives_its_orders_back_at_once(place: Place) -> None:
    began = asyncio.Event()

    async def hang(order: FetchBlob) -> list[Event]:
        began.set()
        await asyncio.Event().wait()
        return []

    async def handle(order: FetchBlob) -> list[Event]:
        return done(order)

    async with place.connect() as one, place.connect() as other, Reader(one) as reader:
        stopping = asyncio.ensure_future(worker(one, hang, limit=3).run())
        for number in range(3):
            await one.orders.send(fetch(number))
        await began.wait()
        await ended(stopping)
        async with running(worker(other, handle).run()):
            await reader.until(lambda r: len(r.read) == 3)


async def test_an_order_that_kills_its_workers_is_given_up(place: Place) -> None:
    async def handle(order: FetchBlob) -> list[Event]:
        raise AssertionError("is never called")

    async with place.connect() as bus, Reader(bus) as reader:
        await bus.orders.send(fetch(1))

        async def crash(delivery: Any) -> None:
            await delivery.nak()
            if delivery.attempt == 4:
                crashed.set()

        crashed = asyncio.Event()
        async with running(bus.orders.receive("fetch.blob", "default", crash, limit=1)):
            await crashed.wait()
        async with running(worker(bus, handle, attempts=1).run()):
            await reader.until(lambda r: len(r.read) == 1)
        assert reader.read[0].event.code == "order.poisonous"


@pytest.mark.parametrize(
    "attempt, luck, delay", [(1, 0.0, 0.25), (1, 1.0, 0.5), (2, 1.0, 1.0), (5, 1.0, 8.0), (50, 1.0, 15.0), (50, 0.0, 7.5)]
)
def test_backoff_doubles_up_to_a_cap(attempt: int, luck: float, delay: float) -> None:
    assert backoff(attempt, luck) == delay


@pytest.mark.parametrize("seconds", [0.0, 1.0, 10.0, 60.0, 600.0])
def test_attempts_outlast_what_they_are_to_outlast_and_are_never_fewer_than_a_few(seconds: float) -> None:
    attempts = attempts_for(seconds)
    shortest = sum(backoff(attempt, 0.0) for attempt in range(1, attempts))
    assert attempts >= BRIEF and shortest >= seconds
    assert attempts == BRIEF or shortest - backoff(attempts - 1, 0.0) < seconds


async def test_an_order_that_is_withdrawn_stops_at_once_and_leaves_the_queue(place: Place) -> None:
    """The log says that the attempt came to nothing: who runs it hears that, stops, and stores no fact of its own."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def handle(order: FetchBlob) -> list[Event]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return done(order)

    async with place.connect() as bus, Reader(bus) as reader:
        async with running(worker(bus, handle).run()):
            order = fetch(1, revision=7)
            await bus.orders.send(order)
            await asyncio.wait_for(begun.wait(), 20)
            other = give_up(fetch(1, revision=6), Permanent("older", code="x"))
            mine = give_up(order, Permanent("nobody waits", code="order.withdrawn", concerns="nobody"))
            await bus.log.append(other)
            assert not stopped.is_set(), "another revision is another order"
            await bus.log.append(mine)
            await asyncio.wait_for(stopped.wait(), 20)
            await reader.until(lambda r: len(r.read) == 2)

            async def gone() -> bool:
                try:
                    await bus.orders.send(order)
                except Exception:
                    return False
                return True

            await eventually(gone)
        assert len(reader.read) == 2


async def test_a_step_of_a_flight_stops_when_the_flight_has_ended_without_it(place: Place) -> None:
    """Everybody who asked has left: whoever still resolves for them hears the flight's end, and stores no fact of its own."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def handle(order: ResolveReference) -> list[Event]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return []

    flight = "0123456789abcdef"
    order = ResolveReference(reference="docker.io/library/redis:latest", flight=flight, opened=7, revision=3)
    ended = PullFailed(reference=order.reference, flight=flight, opened=7, covers=9, code="pull.cancelled", message="left")
    async with place.connect() as bus, Reader(bus) as reader:
        async with running(Worker(bus, "default", {ResolveReference: (handle, 4)}, give_up=give_up).run()):
            await bus.orders.send(order)
            await asyncio.wait_for(begun.wait(), 20)
            await bus.log.append(msgspec.structs.replace(ended, opened=6))
            assert not stopped.is_set(), "an earlier flight of the same name is another one"
            await bus.log.append(ended)
            await asyncio.wait_for(stopped.wait(), 20)
            await reader.until(lambda r: len(r.read) == 2)

            async def gone() -> bool:
                return not await bus.orders.is_out(order_subject(order))

            await eventually(gone)
        assert len(reader.read) == 2

"""Carries orders out: receive → handler → publish the facts → acknowledge. The only place that retries.

A handler takes an order and returns facts. What went wrong it says by the type of its error: `Retryable` gives the order
back with a delay, `Permanent` and the last attempt become a fact that says whom the failure concerns. Facts are stored
before the order is acknowledged, so that a crash in between repeats the order and never loses its outcome.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from pullonce.bus.ports import Bus, Delivery
from pullonce.errors import BusError, Permanent, Retryable
from pullonce.failpoints import reach
from pullonce.trace import carried
from schemas import events, routing, subjects
from schemas.events import Event, Malformed
from schemas.orders import Order, RecordImage, ResolveReference

log = logging.getLogger(__name__)

Handler = Callable[[Any], Awaitable[Sequence[Event]]]
"""Carries one kind of order out and returns what is now true. Called again with the same order after a crash or a retry:
it must find by itself what was done already."""

Failure = Retryable | Permanent

GiveUp = Callable[[Any, Failure], Event]
"""Makes the fact that says an order has failed for good."""

Retrying = Callable[[Any, Failure, float], None]
"""Told of each attempt that will be repeated, and in how many seconds."""


class Watching(Protocol):
    """Told of the orders that are in hand. Must not block."""

    def began(self, order: Any, attempt: int, /) -> None:
        """An attempt begins; 1 is the first."""

    def ended(self, order: Any, /) -> None:
        """The order is done, or given back at once; not called where an attempt will be repeated."""


BRIEF = 5
"""Attempts at what will hardly pass, and at what nobody foresaw."""

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0
"""Seconds, so that work goes on soon after a registry is back."""
_LONGEST_WISH = 300.0
"""Seconds: what a registry may ask for in `Retry-After`."""

_MOST_ENDED = 10_000
"""Flights that are remembered to have failed."""

_POISONOUS = 4
"""An order delivered more than this many times `attempts` kills its workers, or is given back over and over."""


def backoff(attempt: int, luck: float) -> float:
    """Seconds until the next attempt after `attempt` (1 is the first): doubling, capped, spread by `luck` in [0, 1)."""
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(attempt - 1, 16)) * (0.5 + luck / 2)


def attempts_for(seconds: float) -> int:
    """Attempts that outlast a trouble of so many seconds, however short the waits between them turn out; at least `BRIEF`."""
    attempts = 1
    while seconds > 0 or attempts < BRIEF:
        seconds -= backoff(attempts, 0.0)
        attempts += 1
    return attempts


class Worker:
    """Serves orders of several kinds for one store.

    Args:
        table: what to do with each kind of order, and how many of a kind may run at a time.
        give_up: makes the fact of a failure.
        attempts: deliveries after which a `Retryable` is treated as final.
        retrying: told of each attempt that will be repeated; must not block.
        watching: told of the orders that are in hand.
    """

    def __init__(
        self,
        bus: Bus,
        store: str,
        table: Mapping[type[Order], tuple[Handler, int]],
        *,
        give_up: GiveUp,
        attempts: int = BRIEF,
        retrying: Retrying | None = None,
        watching: Watching | None = None,
    ) -> None:
        self._bus = bus
        self._store = store
        self._table = table
        self._make_failure = give_up
        self._attempts = attempts
        self._retrying = retrying
        self._watching = watching
        self._running: dict[Delivery, asyncio.Task[Any]] = {}
        self._withdrawn: set[Delivery] = set()
        self._ended: dict[tuple[str, str, int], None] = {}
        """Flights that were heard to have failed, lately: an order for one that waits for another attempt is needless."""

    async def run(self) -> None:
        """Serve until cancelled; then every running order is given back at once. Raises BusClosed."""
        serving = [asyncio.ensure_future(self._serve(kind, *entry)) for kind, entry in self._table.items()]
        serving.append(asyncio.ensure_future(self._beat()))
        watching = []
        try:
            for each in self._heard():
                watching.append(await self._bus.signals.subscribe(each, self._hear))
            done, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # none ends but by an error
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, *(watch.stop() for watch in watching), return_exceptions=True)

    def _heard(self) -> tuple[str, ...]:
        """What makes work of these kinds needless: its own failure, or that of the flight which a step belongs to."""
        of_flights = (subjects.failed_filter(self._store),) if {ResolveReference, RecordImage} & set(self._table) else ()
        return (*subjects.failure_filters(self._store), *of_flights)

    def _hear(self, subject: str, body: bytes) -> None:
        """An order that runs here is needless, since nobody waits for it: the log holds that already. Stop it."""
        try:
            event = events.decode(subject, body)
        except Malformed:
            return  # the fold parks it
        if isinstance(event, events.PullFailed):
            self._ended[event.store, event.flight, event.opened] = None
            if len(self._ended) > _MOST_ENDED:
                del self._ended[next(iter(self._ended))]
        for delivery, task in self._running.items():
            if _needless(delivery.order, event, subject):
                self._withdrawn.add(delivery)
                task.cancel()

    async def _serve(self, kind: type[Order], handler: Handler, limit: int) -> None:
        async def deliver(delivery: Delivery) -> None:
            await self._deliver(handler, delivery)

        await self._bus.orders.receive(str(kind.__struct_config__.tag), self._store, deliver, limit=limit)

    async def _beat(self) -> None:
        """One timer for all running orders: none is given to another worker while this process lives."""
        while True:
            await asyncio.sleep(self._bus.orders.ack_wait / 4)
            for delivery in list(self._running):
                await delivery.in_progress()

    async def _deliver(self, handler: Handler, delivery: Delivery) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running[delivery] = task
        if self._watching is not None:
            self._watching.began(delivery.order, delivery.attempt)
        try:
            with carried(delivery.trace):
                await self._carry_out(handler, delivery)
        except asyncio.CancelledError:
            self._let_go(delivery)
            if delivery not in self._withdrawn:
                await delivery.nak()
                raise
            task.uncancel()
            log.info("withdrawn", extra={"order": routing.order_subject(delivery.order)})
            await delivery.ack()
        finally:
            self._withdrawn.discard(delivery)
            self._running.pop(delivery, None)

    async def _carry_out(self, handler: Handler, delivery: Delivery) -> None:
        order = delivery.order
        if isinstance(order, ResolveReference | RecordImage) and (order.store, order.flight, order.opened) in self._ended:
            return await self._end(delivery)
        try:
            if delivery.attempt > _POISONOUS * self._attempts:
                raise Permanent(f"delivered {delivery.attempt} times", code="order.poisonous", concerns="key")
            reach("order.received")
            facts = await handler(order)
            reach("fact.ready")
            await self._bus.log.append_all(facts)
            reach("fact.stored")
        except Retryable as exc:
            return await self._try_again(delivery, exc)
        except Permanent as exc:
            await self._give_up(delivery, exc)
        except BusError:
            raise
        except Exception as exc:
            log.exception("an order failed in a way nobody foresaw", extra={"order": repr(order)})
            failure = Retryable(f"{type(exc).__name__}: {exc}", code="internal", concerns="key", brief=True)
            return await self._try_again(delivery, failure)
        return await self._end(delivery)

    async def _try_again(self, delivery: Delivery, failure: Retryable) -> None:
        if delivery.attempt >= (min(self._attempts, BRIEF) if failure.brief else self._attempts):
            await self._give_up(delivery, failure)
            return await self._end(delivery)
        if failure.after is None:
            delay = backoff(delivery.attempt, random.random())
        else:
            delay = min(max(failure.after, 0.0), _LONGEST_WISH)
        about = {**_about(delivery), "code": failure.code, "delay": delay}
        log.info("an attempt failed: %s", failure, extra=about)
        self._running.pop(delivery, None)  # a heartbeat after this would take the delay back
        await delivery.nak(delay)
        if self._retrying is not None:
            self._retrying(delivery.order, failure, delay)
        return None

    async def _give_up(self, delivery: Delivery, failure: Failure) -> None:
        log.warning("gave up: %s", failure, extra={**_about(delivery), "code": failure.code})
        self._running.pop(delivery, None)  # what passes by is our own fact
        await self._bus.log.append_all([self._make_failure(delivery.order, failure)])

    async def _end(self, delivery: Delivery) -> None:
        self._running.pop(delivery, None)
        self._let_go(delivery)
        await delivery.ack()

    def _let_go(self, delivery: Delivery) -> None:
        if self._watching is not None:
            self._watching.ended(delivery.order)


def _needless(order: Order, event: Event, subject: str) -> bool:
    """Whether a fact says of an order that nobody waits for it: its own failure, or a failed flight's ending."""
    match order, event:
        case ResolveReference() | RecordImage(), events.PullFailed():
            return (order.store, order.flight, order.opened) == (event.store, event.flight, event.opened)
        case _:
            return routing.failure_subject(order) == subject and order.revision == getattr(event, "revision", 0)


def _about(delivery: Delivery) -> dict[str, object]:
    """What a line of the log says of an order."""
    order = delivery.order
    blob = getattr(order, "blob", None)
    about = {
        "order": str(order.__struct_config__.tag),
        "flight": getattr(order, "flight", ""),
        "digest": blob.digest if blob is not None else getattr(order, "digest", ""),
        "chain_id": getattr(order, "chain_id", ""),
        "revision": order.revision,
        "attempt": delivery.attempt,
    }
    return {name: each for name, each in about.items() if each != ""}

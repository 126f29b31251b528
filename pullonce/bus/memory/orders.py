"""The work queue of the memory twin."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from pullonce import trace
from pullonce.bus.limits import check_size
from pullonce.bus.memory.clock import Clock, Timer
from pullonce.bus.memory.signals import subjects_match
from pullonce.bus.memory.soon import soon
from pullonce.bus.ports import Delivery
from pullonce.errors import Duplicate
from schemas import orders, routing, subjects
from schemas.events import Malformed
from schemas.orders import Order


@dataclass(slots=True, eq=False)
class _Queued:
    """One order from the moment it is sent until it is acknowledged."""

    sequence: int
    subject: str
    body: bytes
    attempt: int = 0
    trace: str = ""
    timer: Timer | None = None
    """The acknowledgement deadline while it runs; the end of the delay while it waits."""


@dataclass(slots=True, eq=False)
class _Receiver:
    limit: int
    deliver: Callable[[Delivery], Awaitable[None]]
    failed: asyncio.Future[None]
    running: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(slots=True)
class _Queue:
    """The orders of one kind for one store, and who takes them."""

    ready: deque[_Queued] = field(default_factory=deque)
    receivers: deque[_Receiver] = field(default_factory=deque)


class MemoryDelivery:
    """`bus.Delivery`. Like the server, it lets any delivery acknowledge, but only the latest one give back."""

    __slots__ = ("_answered", "_attempt", "_order", "_orders", "_queued")

    def __init__(self, orders: MemoryOrders, queued: _Queued, order: Order) -> None:
        self._orders = orders
        self._queued = queued
        self._order = order
        self._attempt = queued.attempt
        self._answered = False

    @property
    def order(self) -> Order:
        return self._order

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def trace(self) -> str:
        return self._queued.trace

    async def ack(self) -> None:
        self._answered = True
        self._orders.remove(self._queued)

    async def nak(self, delay: float = 0.0) -> None:
        self._give_back(delay)

    def drop(self) -> None:
        """Give it back at once, for somebody who ended without a word about it."""
        if not self._answered:
            self._give_back(0.0)

    def _give_back(self, delay: float) -> None:
        self._answered = True
        if self._attempt == self._queued.attempt:
            self._orders.give_back(self._queued, delay)

    async def in_progress(self) -> None:
        if self._attempt == self._queued.attempt:
            self._orders.set_deadline(self._queued)


class MemoryOrders:
    """`bus.Orders`."""

    def __init__(self, clock: Clock, ack_wait: float, park: Callable[[int, str, bytes, str], None]) -> None:
        self._clock = clock
        self._ack_wait = ack_wait
        self._park = park
        self._sequence = 0
        self._stored: dict[str, _Queued] = {}
        self._queues: dict[str, _Queue] = {}

    @property
    def ack_wait(self) -> float:
        return self._ack_wait

    async def send(self, order: Order) -> None:
        self.put(routing.order_subject(order), msgspec.json.encode(order))

    def send_soon(self, order: Order, *, done: Callable[[int | None], None]) -> None:
        soon(self._sent(order), done)

    async def _sent(self, order: Order) -> int:
        with contextlib.suppress(Duplicate):
            await self.send(order)
        return 1

    async def withdraw(self, order: Order) -> None:
        if (queued := self._stored.get(routing.order_subject(order))) is not None:
            self.remove(queued)

    async def is_out(self, subject: str) -> bool:
        return any(subjects_match(subject, stored) for stored in self._stored)

    async def receive(self, kind: str, store: str, deliver: Callable[[Delivery], Awaitable[None]], *, limit: int) -> None:
        queue = self._queue(subjects.order_filter(kind, store)[:-1])
        receiver = _Receiver(limit, deliver, asyncio.get_running_loop().create_future())
        queue.receivers.append(receiver)
        try:
            self._dispatch(queue)
            await receiver.failed
        finally:
            queue.receivers.remove(receiver)
            running = list(receiver.running)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def put(self, subject: str, body: bytes) -> int:
        """Store whatever was sent to a subject of the queue. Raises Duplicate."""
        check_size(subject, len(body))
        if subject in self._stored:
            raise Duplicate(f"{subject} is queued or running")
        self._sequence += 1
        queued = self._stored[subject] = _Queued(self._sequence, subject, body, trace=trace.current())
        self._make_ready(queued)
        return self._sequence

    @property
    def pending(self) -> list[str]:
        """Subjects of all orders that are queued or running, oldest first."""
        return list(self._stored)

    # -- what deliveries say -------------------------------------------------------------------------------------------

    def remove(self, queued: _Queued) -> None:
        if self._stored.get(queued.subject) is queued:
            del self._stored[queued.subject]
            self._stop_timer(queued)
            ready = self._queue_of(queued).ready
            if queued in ready:
                ready.remove(queued)

    def give_back(self, queued: _Queued, delay: float) -> None:
        if self._stored.get(queued.subject) is not queued:
            return
        self._stop_timer(queued)
        if delay > 0:
            queued.timer = self._clock.call_later(delay, lambda: self._make_ready(queued))
        else:
            self._make_ready(queued)

    def set_deadline(self, queued: _Queued) -> None:
        if self._stored.get(queued.subject) is queued:
            self._stop_timer(queued)
            queued.timer = self._clock.call_later(self._ack_wait, lambda: self._make_ready(queued))

    # -- queues --------------------------------------------------------------------------------------------------------

    def _queue(self, prefix: str) -> _Queue:
        return self._queues.setdefault(prefix, _Queue())

    def _queue_of(self, queued: _Queued) -> _Queue:
        return self._queue(".".join(queued.subject.split(".", 3)[:3]) + ".")

    def _stop_timer(self, queued: _Queued) -> None:
        if queued.timer is not None:
            queued.timer.cancel()
            queued.timer = None

    def _make_ready(self, queued: _Queued) -> None:
        queue = self._queue_of(queued)
        if queued not in queue.ready:
            queue.ready.append(queued)
        self._dispatch(queue)

    def _dispatch(self, queue: _Queue) -> None:
        """Hand ready orders to receivers with a free slot, in turn."""
        for _ in range(len(queue.receivers)):
            receiver = queue.receivers[0]
            queue.receivers.rotate(-1)
            while queue.ready and len(receiver.running) < receiver.limit and not receiver.failed.done():
                self._hand_over(queue, receiver, queue.ready.popleft())

    def _hand_over(self, queue: _Queue, receiver: _Receiver, queued: _Queued) -> None:
        try:
            order = orders.decode(queued.subject, queued.body)
        except Malformed as exc:
            self._park(queued.sequence, queued.subject, queued.body, str(exc))
            return self.remove(queued)
        queued.attempt += 1
        self.set_deadline(queued)

        delivery = MemoryDelivery(self, queued, order)

        def done(task: asyncio.Task[None]) -> None:
            receiver.running.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None and not receiver.failed.done():
                receiver.failed.set_exception(error)
            if task.cancelled() or error is not None:
                delivery.drop()  # also where it was cancelled before it took its first step
            elif not receiver.failed.done():
                self._dispatch(queue)

        task = asyncio.ensure_future(receiver.deliver(delivery))
        receiver.running.add(task)
        task.add_done_callback(done)
        return None

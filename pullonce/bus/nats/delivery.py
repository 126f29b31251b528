"""One order in the hands of a worker, and what a worker takes of one kind at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from pullonce.bus.nats.link import Link
from pullonce.bus.nats.protocol import nanoseconds
from pullonce.bus.ports import Delivery
from pullonce.errors import BusError
from schemas.orders import Order


class NatsDelivery:
    """`bus.Delivery`: one order and the subject under which the server wants to hear of it.

    Acknowledgements are sent without waiting for an answer. One that is lost only brings the order once more, and the disk
    then answers at once.
    """

    __slots__ = ("_attempt", "_link", "_order", "_reply", "_trace", "answered", "sequence")

    def __init__(self, link: Link, order: Order, reply: str, sequence: int, attempt: int, trace: str) -> None:
        self._link = link
        self._order = order
        self._reply = reply
        self.sequence = sequence
        """Its place in the stream: the same order, sent once more, has another."""
        self._attempt = attempt
        self._trace = trace
        self.answered = False
        """The server was told what became of it."""

    def resume(self, reply: str, attempt: int) -> None:
        """The server has handed the same order out anew, and wants to hear of it under another subject."""
        self._reply = reply
        self._attempt = max(self._attempt, attempt)

    @property
    def order(self) -> Order:
        return self._order

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def trace(self) -> str:
        return self._trace

    async def ack(self) -> None:
        self.answered = True
        await self._link.send(self._reply, b"+ACK")

    async def nak(self, delay: float = 0.0) -> None:
        self.answered = True
        body = b"-NAK" if delay <= 0 else b"-NAK " + msgspec.json.encode({"delay": nanoseconds(delay)})
        await self._link.send(self._reply, body)

    async def in_progress(self) -> None:
        await self._link.send(self._reply, b"+WPI")

    def drop(self) -> None:
        """Give it back at once, for somebody who ended without a word about it."""
        if not self.answered:
            self.answered = True
            with suppress(BusError):
                self._link.post(self._reply, b"-NAK")


class OrderKind:
    """Who carries out one kind of order, and what runs and waits of it."""

    def __init__(self, limit: int, deliver: Callable[[Delivery], Awaitable[None]]) -> None:
        self.limit = limit
        self.deliver = deliver
        self.running: set[asyncio.Task[None]] = set()
        self.waiting: deque[NatsDelivery] = deque()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopping = False

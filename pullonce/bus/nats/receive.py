"""Takes orders off a shared consumer: as many are asked for as there are free slots, and asked for again whenever in doubt.

A pull request waits at the server until an order comes or it expires, so a free slot costs nothing and an order reaches it
at once. Requests are counted, not tracked: each order and each expiry says how many credits came back. After a
reconnection, a change of leader or silence the count is uncertain; then the inbox is replaced, which kills all requests
made under the old one, and everything is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.msg import Msg

from pullonce import trace
from pullonce.bus.nats.jetstream import WRONG_SEQUENCE, Refused, api, store
from pullonce.bus.nats.link import RETRY_PAUSE, Headers, Link
from pullonce.bus.nats.protocol import Position, position
from pullonce.bus.ports import Delivery
from pullonce.errors import BusClosed
from schemas import orders, subjects
from schemas.events import Malformed
from schemas.orders import Order

log = logging.getLogger(__name__)

_EXPIRES = 30.0
_HEARTBEAT = 2.0
_SILENCE = 3 * _HEARTBEAT
_MANY = 1_000_000

_SETTLED = frozenset({"404", "408"})
"""A request is over: nothing came within its time. How many orders it still waited for is in the header."""


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


class NatsDelivery:
    """`bus.Delivery`: one order and the subject under which the server wants to hear of it.

    Acknowledgements are sent without waiting for an answer. One that is lost only brings the order once more, and the disk
    then answers at once.
    """

    __slots__ = ("_attempt", "_link", "_order", "_reply", "_trace")

    def __init__(self, link: Link, order: Order, reply: str, attempt: int, trace: str) -> None:
        self._link = link
        self._order = order
        self._reply = reply
        self._attempt = attempt
        self._trace = trace

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
        await self._link.send(self._reply, b"+ACK")

    async def nak(self, delay: float = 0.0) -> None:
        body = b"-NAK" if delay <= 0 else b"-NAK " + msgspec.json.encode({"delay": _nanoseconds(delay)})
        await self._link.send(self._reply, body)

    async def in_progress(self) -> None:
        await self._link.send(self._reply, b"+WPI")


class Receiver:
    """Runs `deliver` for each order of one kind and store, at most `limit` at a time."""

    def __init__(
        self,
        link: Link,
        kind: str,
        store: str,
        deliver: Callable[[Delivery], Awaitable[None]],
        *,
        limit: int,
        ack_wait: float,
    ) -> None:
        self._link = link
        self._deliver = deliver
        self._limit = limit
        self._stream = subjects.ORDERS_STREAM
        self._durable = subjects.order_durable(kind, store)
        self._config = {
            "durable_name": self._durable,
            "filter_subject": subjects.order_filter(kind, store),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": _nanoseconds(ack_wait),
            "max_deliver": -1,
            "max_ack_pending": _MANY,
            "max_waiting": 4096,
        }
        self._inbox = ""
        self._asked = 0
        self._running: set[asyncio.Task[None]] = set()
        self._heard = False
        self._stopping = False
        self._turn = asyncio.Event()
        """Set when there may be something to ask for, or to end for."""
        self._doubt: asyncio.Future[None]

    async def run(self) -> None:
        """Receive until cancelled. Raises what `deliver` raises, and BusClosed."""
        self._link.on_reconnect.append(self._begin_again)
        try:
            while True:
                await self._attached()
        finally:
            self._link.on_reconnect.remove(self._begin_again)
            self._stopping = True
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _attached(self) -> None:
        """One inbox's life; returns when it must be replaced."""
        self._doubt = self._link.future()
        self._doubt.add_done_callback(lambda _: self._turn.set())
        self._asked = 0
        self._inbox = self._link.new_inbox()
        await self._make_consumer()
        subscription = await self._link.subscribe(self._inbox, self._on_message)
        watch = asyncio.ensure_future(self._watch())
        try:
            while not self._doubt.done():
                await self._refill()
                await self._turn.wait()
                self._turn.clear()
            self._doubt.result()
        except BaseException:
            self._stopping = True
            raise
        finally:
            watch.cancel()
            self._doubt.cancel()
            # What was sent to the old inbox before the server heard of its end is still taken, or given back.
            await self._link.retire(subscription)

    async def _make_consumer(self) -> None:
        request = {"stream_name": self._stream, "config": self._config}
        # The filter stands in the subject too, so that permissions can hold a worker to its own kind of order.
        name = f"CONSUMER.CREATE.{self._stream}.{self._durable}.{self._config['filter_subject']}"
        await api(self._link, name, request)

    async def _refill(self) -> None:
        """Ask for as many orders as there are free slots that nothing was asked for yet."""
        free = self._limit - len(self._running) - self._asked
        if free <= 0 or not self._link.connected:
            return
        self._asked += free
        request = {"batch": free, "expires": _nanoseconds(_EXPIRES), "idle_heartbeat": _nanoseconds(_HEARTBEAT)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}"
        await self._link.send(subject, msgspec.json.encode(request), reply=self._inbox)

    # -- what arrives --------------------------------------------------------------------------------------------------

    async def _on_message(self, msg: Msg) -> None:
        self._heard = True
        try:
            if (at := position(msg.reply.encode())) is not None:
                await self._on_order(msg, at)
            else:
                await self._on_status(msg)
        except BusClosed:
            pass  # the main loop hears of it too
        except Exception as exc:
            self._fail(exc)

    async def _on_order(self, msg: Msg, at: Position) -> None:
        delivered, sequence, *_ = at
        self._asked = max(0, self._asked - 1)
        if self._stopping or len(self._running) >= self._limit:
            await self._link.send(msg.reply, b"-NAK")
            return
        try:
            order = orders.decode(msg.subject, msg.data)
        except Malformed as exc:
            await self._park(msg, sequence, str(exc))
            self._turn.set()
            return
        delivery = NatsDelivery(self._link, order, msg.reply, delivered, trace.read(msg.headers))
        task = asyncio.ensure_future(self._deliver(delivery))
        self._running.add(task)
        task.add_done_callback(self._on_done)

    async def _on_status(self, msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status", "")
        if status == "100":  # a heartbeat
            return
        if status in _SETTLED:
            left = headers.get("Nats-Pending-Messages", "")
            self._asked = max(0, self._asked - (int(left) if left.isdecimal() else self._limit))
            self._turn.set()
            return
        log.info("asking for %s anew: %s %s", self._durable, status, headers.get("Description", ""))
        await asyncio.sleep(RETRY_PAUSE)
        self._begin_again()

    async def _park(self, msg: Msg, sequence: int, reason: str) -> None:
        log.warning("parked order %d on %s: %s", sequence, msg.subject, reason)
        headers: Headers = {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Pullonce-Subject": msg.subject,
            "Pullonce-Reason": " ".join(reason.split())[:1000],
        }
        try:
            await store(self._link, subjects.parked_subject(self._stream, sequence), msg.data, headers)
        except Refused as exc:
            if exc.err_code not in WRONG_SEQUENCE:
                raise
        await self._link.send(msg.reply, b"+TERM")

    # -- what ends -----------------------------------------------------------------------------------------------------

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        else:
            self._turn.set()

    def _fail(self, error: BaseException) -> None:
        if not self._doubt.done():
            self._doubt.set_exception(error)

    async def _watch(self) -> None:
        while True:
            self._heard = False
            await asyncio.sleep(_SILENCE)
            if not self._heard and self._asked and self._link.connected:
                self._begin_again()

    def _begin_again(self) -> None:
        if not self._doubt.done():
            self._doubt.set_result(None)

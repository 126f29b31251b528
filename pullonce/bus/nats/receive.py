"""Takes orders off a shared consumer: as many are asked for as there are free slots, and asked for again whenever in doubt.

A pull request waits at the server until an order comes or it expires, so a free slot costs nothing and an order reaches it
at once. Requests are counted, not tracked: each order and each expiry says how many credits came back. After a
reconnection, a change of leader or silence the count is uncertain; then the inbox is replaced, which kills all requests
made under the old one, and everything is asked for again.

One consumer serves all kinds of a worker, since a server pays for each. It lies in the memory of the server, which forgets it
when it is restarted; then it is made anew and hands out once more whatever was not acknowledged: an order that runs here
already is known by its sequence, and goes on under its new delivery.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from pullonce import trace
from pullonce.bus.nats.delivery import NatsDelivery, OrderKind
from pullonce.bus.nats.jetstream import CONSUMER_IN_THE_WAY, NO_CONSUMER, NO_STREAM, WRONG_SEQUENCE, Refused, api, store
from pullonce.bus.nats.link import RETRY_PAUSE, Headers, Link
from pullonce.bus.nats.protocol import Position, nanoseconds, position
from pullonce.errors import BusClosed
from schemas import orders, subjects
from schemas.events import Malformed

log = logging.getLogger(__name__)

_EXPIRES = 30.0
_HEARTBEAT = 10.0
"""A heartbeat for each request that waits: thousands of stores wait all the time. What breaks is heard of in other ways."""
_SILENCE = 2.5 * _HEARTBEAT
_FORGET = 60.0
"""Seconds after which the server drops a consumer that nobody asks. Longer than a request waits."""
_AHEAD = 64
"""Orders that may wait here for a slot of their kind, so that they do not keep back those of other kinds."""
_LEAVING = 1.0
"""Seconds after which a server that says it ends has ended: ours, and the connection breaks, or another one of its cluster."""
_MAKING, _MAKING_MOST = 10.0, 120.0
"""Seconds in which a server makes a consumer, at first and in the end. A leader that ends may take the question along. But the
server compares each consumer with all it has, so the last of thousands that come back at once waits for long, and whoever asks
again meanwhile makes that longer."""
_ELSEWHERE = 1.0
"""Seconds after which an order of a kind that is not served here is offered again."""
_MANY = 1_000_000

_SETTLED = frozenset({"404", "408"})
"""A request is over: nothing came within its time. How many orders it still waited for is in the header."""


class Receiver:
    """Runs what carries each order out, for the kinds of one group of workers and one store: see `subjects.ORDER_GROUPS`."""

    def __init__(self, link: Link, group: str, store: str, *, ack_wait: float) -> None:
        self._link = link
        self._stream = subjects.ORDERS_STREAM
        self._store = store
        self._group = group
        self._durable = subjects.order_consumer(group, store)
        filters = [subjects.order_filter(kind, store) for kind in subjects.ORDER_GROUPS[group]]
        # The filter stands in the subject too where there is one, so that permissions can hold a worker to it.
        self._name = f"{self._durable}.{filters[0]}" if len(filters) == 1 else self._durable
        self._config = {
            "durable_name": self._durable,
            **({"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": filters}),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(ack_wait),
            "max_deliver": -1,
            "max_ack_pending": _MANY,
            "max_waiting": 4096,
            "mem_storage": True,
            "inactive_threshold": nanoseconds(_FORGET),
        }
        self._kinds: dict[str, OrderKind] = {}
        self._in_hand: dict[int, NatsDelivery] = {}
        """Sequence in the stream → its delivery, of all orders that run or wait here."""
        self._ack_wait = ack_wait
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._asked = 0
        self._heard = False
        self._stopping = False
        self._turn = asyncio.Event()
        """Set when there may be something to ask for, or to end for."""
        self._doubt: asyncio.Future[None]

    # -- kinds come and go ---------------------------------------------------------------------------------------------

    def add(self, kind: str, entry: OrderKind) -> None:
        """Serve a kind, from now on."""
        self._kinds[kind] = entry
        self._turn.set()

    def serves_only(self, kind: str) -> bool:
        return self._kinds.keys() == {kind}

    async def remove(self, kind: str) -> None:
        """Serve a kind no longer: what runs is cancelled and awaited, what waits is given back.

        With the last kind goes the receiver: the server hears first that nothing more is taken here, so that it does not hand
        out here again what is given back. Must not be cancelled, and nothing must be added after the last.
        """
        entry = self._kinds.pop(kind)
        entry.stopping = True
        for task in entry.running:
            task.cancel()
        if not self._kinds:
            self._stopping = True
            if self._subscription is not None:
                await self._link.hush(self._subscription)
        await asyncio.sleep(0)  # kinds that are removed in one moment: none gives anything back before the last of them is gone
        for delivery in entry.waiting:
            self._in_hand.pop(delivery.sequence, None)
            delivery.drop()
        await asyncio.gather(*entry.running, return_exceptions=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Receive until cancelled. Raises BusClosed."""
        self._link.on_reconnect.append(self._begin_again)
        tasks = [asyncio.ensure_future(each) for each in (self._receive(), self._beat())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # neither ends but by an error
        finally:
            self._link.on_reconnect.remove(self._begin_again)
            self._stopping = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> None:
        while True:
            await self._attached()

    async def _attached(self) -> None:
        """One inbox's life; returns when it must be replaced."""
        self._doubt = self._link.future()
        self._doubt.add_done_callback(lambda _: self._turn.set())
        self._asked = 0
        self._inbox = self._link.new_inbox()
        await self._make_consumer()
        self._subscription = await self._link.subscribe(self._inbox, self._on_message)
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
            await self._link.retire(self._subscription)

    async def _make_consumer(self) -> None:
        request = {"stream_name": self._stream, "config": self._config}
        name, told = f"CONSUMER.CREATE.{self._stream}.{self._name}", False
        while True:
            try:
                await api(self._link, name, request, timeout=_MAKING, most=_MAKING_MOST)
                return
            except Refused as exc:
                if exc.err_code in CONSUMER_IN_THE_WAY:
                    await self._replace_consumers()
                elif exc.err_code == NO_STREAM:  # somebody removed it; what was in it is given again by whoever wants it
                    if not told:
                        log.warning("stream %s is missing: waiting until it is made again", self._stream)
                    told = True
                    await self._link.remake()
                    await asyncio.sleep(RETRY_PAUSE)
                else:
                    raise

    async def _replace_consumers(self) -> None:
        """Remove the consumers that an earlier version served these orders with: one a kind, on disk. Workers of that version
        that still run would make them again, and end since these are in their way."""
        log.info("replacing the consumers of an earlier version for store %s", self._store)
        for kind in subjects.ORDER_GROUPS[self._group]:
            try:
                await api(self._link, f"CONSUMER.DELETE.{self._stream}.{subjects.order_durable(kind, self._store)}")
            except Refused as exc:
                if exc.err_code != NO_CONSUMER:
                    raise

    async def _refill(self) -> None:
        """Ask for as many orders as there are free slots that nothing was asked for yet."""
        room = sum(entry.limit for entry in self._kinds.values()) + (_AHEAD if len(self._kinds) > 1 else 0)
        free = room - len(self._in_hand) - self._asked
        if free <= 0 or not self._link.connected or self._stopping:
            return
        self._asked += free
        request = {"batch": free, "expires": nanoseconds(_EXPIRES), "idle_heartbeat": nanoseconds(_HEARTBEAT)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}"
        await self._link.send(subject, msgspec.json.encode(request), reply=self._inbox)

    async def _beat(self) -> None:
        """Keep what waits here for a slot from being handed to others."""
        while True:
            await asyncio.sleep(self._ack_wait / 4)
            for entry in list(self._kinds.values()):  # kinds come and go, and orders begin, while this is sent
                for delivery in list(entry.waiting):
                    if delivery in entry.waiting and not entry.stopping:
                        await delivery.in_progress()

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
        if self._stopping:
            await self._link.send(msg.reply, b"-NAK")
            return
        try:
            order = orders.decode(msg.subject, msg.data)
        except Malformed as exc:
            await self._park(msg, sequence, str(exc))
            self._turn.set()
            return
        entry = self._kinds.get(".".join(msg.subject.split(".", 2)[:2]))
        known = self._in_hand.get(sequence)
        if known is not None and (delivered <= known.attempt or (entry is not None and known in entry.waiting)):
            # The server has forgotten that it handed it out, or heard for too long nothing of one that has yet to begin.
            known.resume(msg.reply, delivered)
            self._turn.set()
            return
        delivery = NatsDelivery(self._link, order, msg.reply, sequence, delivered, trace.read(msg.headers or {}))
        if entry is None:
            await delivery.nak(_ELSEWHERE)
            self._turn.set()
            return
        self._in_hand[sequence] = delivery
        entry.waiting.append(delivery)
        self._start(entry)

    def _start(self, entry: OrderKind) -> None:
        while entry.waiting and len(entry.running) < entry.limit and not entry.stopping:
            delivery = entry.waiting.popleft()
            task = asyncio.ensure_future(entry.deliver(delivery))
            entry.running.add(task)
            task.add_done_callback(partial(self._on_done, entry, delivery))

    async def _on_status(self, msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status", "")
        if status == "100":  # a heartbeat
            return
        if status in _SETTLED:
            self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", self._asked)))
            self._turn.set()
            return
        doubt, why = self._doubt, headers.get("Description", "")
        log.info("asking for %s anew: %s %s", self._durable, status, why)
        await asyncio.sleep(_LEAVING if "shutdown" in why.lower() else RETRY_PAUSE)
        if doubt is self._doubt and self._link.connected:  # else it was begun again meanwhile, or will be
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

    def _on_done(self, entry: OrderKind, delivery: NatsDelivery, task: asyncio.Task[None]) -> None:
        entry.running.discard(task)
        if self._in_hand.get(delivery.sequence) is delivery:
            del self._in_hand[delivery.sequence]
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            delivery.drop()  # also where it was cancelled before it took its first step
        if error is not None:
            if not entry.failed.done():
                entry.failed.set_exception(error)
        else:
            self._start(entry)
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

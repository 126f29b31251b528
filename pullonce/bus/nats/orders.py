"""The work queue ORDERS over JetStream: one message a subject, one consumer for the workers of a kind and store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from pullonce import trace
from pullonce.bus.nats.jetstream import NO_STREAM, SUBJECT_FULL, Ack, Refused, api, call, store
from pullonce.bus.nats.link import Link
from pullonce.bus.nats.receive import OrderKind, Receiver
from pullonce.bus.ports import Delivery
from pullonce.config import BusSettings
from pullonce.errors import Duplicate
from schemas import routing, subjects
from schemas.orders import Order

_encode = msgspec.json.Encoder().encode


class NatsOrders:
    """`bus.Orders` on a link."""

    def __init__(self, link: Link, settings: BusSettings) -> None:
        self._link = link
        self._ack_wait = settings.ack_wait
        self._receivers: dict[tuple[str, str], tuple[Receiver, asyncio.Task[None]]] = {}

    @property
    def ack_wait(self) -> float:
        return self._ack_wait

    async def send(self, order: Order) -> None:
        subject = routing.order_subject(order)
        try:
            await store(self._link, subject, _encode(order), trace.headers())
        except Refused as exc:
            if exc.err_code != SUBJECT_FULL:
                raise
            if not exc.unclear:  # else it may well be our own earlier attempt that lies there
                raise Duplicate(f"{subject} is queued or running") from exc

    def send_soon(self, order: Order, *, done: Callable[[int | None], None]) -> None:
        def take(ack: Ack | None) -> None:
            stored = ack is not None and (ack.error is None or ack.error.err_code == SUBJECT_FULL)
            done(1 if stored else None)

        call(self._link, routing.order_subject(order), _encode(order), trace.headers(), take)

    async def withdraw(self, order: Order) -> None:
        try:
            await api(self._link, f"STREAM.PURGE.{subjects.ORDERS_STREAM}", {"filter": routing.order_subject(order)})
        except Refused as exc:
            if exc.err_code != NO_STREAM:
                raise
            await self._link.remake()

    async def is_out(self, subject: str) -> bool:
        # Counts alone, from the stream's leader: whoever asks this need not be allowed to read orders.
        try:
            info = await api(self._link, f"STREAM.INFO.{subjects.ORDERS_STREAM}", {"subjects_filter": subject})
        except Refused as exc:
            if exc.err_code != NO_STREAM:
                raise
            await self._link.remake()
            return False
        return bool(info["state"].get("subjects"))

    async def receive(self, kind: str, store: str, deliver: Callable[[Delivery], Awaitable[None]], *, limit: int) -> None:
        group = subjects.order_group(kind)
        entry = OrderKind(limit, deliver)
        async with self._receiver(group, store) as (receiver, running):
            receiver.add(kind, entry)
            try:
                await asyncio.wait((running, entry.failed), return_when=asyncio.FIRST_COMPLETED)
                await (entry.failed if entry.failed.done() else running)
            finally:
                await receiver.remove(kind)

    @asynccontextmanager
    async def _receiver(self, group: str, store: str) -> AsyncIterator[tuple[Receiver, asyncio.Task[None]]]:
        """The receiver of a group and store, and its task: one for all kinds, for as long as one is served."""
        name = (group, store)
        if name not in self._receivers:
            receiver = Receiver(self._link, group, store, ack_wait=self._ack_wait)
            self._receivers[name] = receiver, asyncio.ensure_future(receiver.run())
        receiver, running = self._receivers[name]
        try:
            yield receiver, running
        finally:
            if receiver.idle:
                if self._receivers.get(name) == (receiver, running):
                    del self._receivers[name]
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

"""The work queue ORDERS over JetStream: one message a subject, one consumer for the workers of a kind and store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from pullonce import trace
from pullonce.bus.nats.delivery import OrderKind
from pullonce.bus.nats.jetstream import NO_STREAM, SUBJECT_FULL, Ack, Refused, api, call, store
from pullonce.bus.nats.link import Link
from pullonce.bus.nats.receive import Receiver
from pullonce.bus.ports import Delivery
from pullonce.config import BusSettings
from pullonce.errors import Duplicate
from pullonce.unbroken import to_the_end
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
        name = subjects.order_group(kind), store
        entry = OrderKind(limit, deliver)
        if name not in self._receivers:
            made = Receiver(self._link, *name, ack_wait=self._ack_wait)
            self._receivers[name] = made, asyncio.ensure_future(made.run())
        receiver, running = self._receivers[name]
        receiver.add(kind, entry)
        try:
            await asyncio.wait((running, entry.failed), return_when=asyncio.FIRST_COMPLETED)
            await (entry.failed if entry.failed.done() else running)
        finally:
            await to_the_end(self._leave(kind, name, receiver, running))

    async def _leave(self, kind: str, name: tuple[str, str], receiver: Receiver, running: asyncio.Task[None]) -> None:
        """Serve a kind no longer; its receiver, which is one for all kinds, goes with the last."""
        last = receiver.serves_only(kind)
        if last and self._receivers.get(name) == (receiver, running):
            del self._receivers[name]  # whoever comes now gets one of their own
        await receiver.remove(kind)
        if last:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

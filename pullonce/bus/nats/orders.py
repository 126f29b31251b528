"""The work queue ORDERS over JetStream: one message a subject, one shared durable consumer for each kind and store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from pullonce import trace
from pullonce.bus.nats.jetstream import SUBJECT_FULL, Refused, api, store
from pullonce.bus.nats.link import Link
from pullonce.bus.nats.receive import Receiver
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

    async def withdraw(self, order: Order) -> None:
        await api(self._link, f"STREAM.PURGE.{subjects.ORDERS_STREAM}", {"filter": routing.order_subject(order)})

    async def is_out(self, subject: str) -> bool:
        # Counts alone, from the stream's leader: whoever asks this need not be allowed to read orders.
        info = await api(self._link, f"STREAM.INFO.{subjects.ORDERS_STREAM}", {"subjects_filter": subject})
        return bool(info["state"].get("subjects"))

    async def receive(self, kind: str, store: str, deliver: Callable[[Delivery], Awaitable[None]], *, limit: int) -> None:
        await Receiver(self._link, kind, store, deliver, limit=limit, ack_wait=self._ack_wait).run()

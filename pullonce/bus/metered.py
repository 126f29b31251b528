"""A bus whose ports are measured: what is said, ordered and claimed through it, and how long the bus took to store it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from pullonce.bus.ports import Bus, Claims, Log, Orders
from pullonce.errors import Duplicate, WrongRevision
from pullonce.telemetry.metrics import Meter
from schemas.events import Event
from schemas.orders import Order


class MeteredBus:
    """`Bus`, measured. Ports that are not measured are those of the bus itself."""

    def __init__(self, bus: Bus, meter: Meter) -> None:
        self.log = cast(Log, _Log(bus.log, meter))
        self.orders = cast(Orders, _Orders(bus.orders, meter))
        self.claims = cast(Claims, _Claims(bus.claims, meter))
        self.signals = bus.signals


class _Measured:
    """Hands on everything that it does not measure."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Log(_Measured):
    def __init__(self, inner: Log, meter: Meter) -> None:
        super().__init__(inner)
        self._said = meter.counter("events_appended_total", "Events that this process stored.", ("type",))
        self._took = meter.histogram("append_duration_seconds", "From sending events to the bus to their being stored.")

    async def append(self, event: Event, *, cause: int | None = None, subject: str = "", message_id: str = "") -> int:
        with self._took.time():
            sequence: int = await self._inner.append(event, cause=cause, subject=subject, message_id=message_id)
        self._said.labels(_tag(event)).inc()
        return sequence

    async def append_all(self, events: Sequence[Event], *, cause: int | None = None) -> list[int]:
        with self._took.time():
            sequences: list[int] = await self._inner.append_all(events, cause=cause)
        for event in events:
            self._said.labels(_tag(event)).inc()
        return sequences

    def append_soon(self, event: Event, *, message_id: str = "", done: Callable[[int | None], None]) -> None:
        said, observe, began = self._said.labels(_tag(event)), self._took.observe, time.perf_counter()

        def stored(sequence: int | None) -> None:
            if sequence is not None:
                observe(time.perf_counter() - began)
                said.inc()
            done(sequence)

        self._inner.append_soon(event, message_id=message_id, done=stored)


class _Orders(_Measured):
    def __init__(self, inner: Orders, meter: Meter) -> None:
        super().__init__(inner)
        self._sent = meter.counter("orders_sent_total", "Orders that this process queued.", ("kind", "outcome"))

    async def send(self, order: Order) -> None:
        outcome = "refused"
        try:
            await self._inner.send(order)
            outcome = "queued"
        except Duplicate:
            outcome = "duplicate"
            raise
        finally:
            self._sent.labels(_tag(order), outcome).inc()

    def send_soon(self, order: Order, *, done: Callable[[int | None], None]) -> None:
        queued = self._sent.labels(_tag(order), "queued")

        def sent(outcome: int | None) -> None:
            if outcome is not None:
                queued.inc()
            done(outcome)

        self._inner.send_soon(order, done=sent)


class _Claims(_Measured):
    def __init__(self, inner: Claims, meter: Meter) -> None:
        super().__init__(inner)
        self._puts = meter.counter("claims_total", "Attempts to write a claim, by how they ended.", ("noun", "outcome"))
        self._took = meter.histogram("claim_duration_seconds", "What one compare-and-set took.")

    async def put(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        began, outcome = time.monotonic(), "failed"
        try:
            revision: int = await self._inner.put(key, value, expected=expected, ttl=ttl)
            outcome = "won"
        except WrongRevision:
            outcome = "lost"
            raise
        finally:
            self._puts.labels(key.partition(".")[0], outcome).inc()
            self._took.observe(time.monotonic() - began)
        return revision

    def put_soon(
        self, key: str, value: bytes, *, expected: int, ttl: float | None = None, done: Callable[[int | None], None]
    ) -> None:
        won, observe, began = self._puts.labels(key.partition(".")[0], "won"), self._took.observe, time.monotonic()

        def written(revision: int | None) -> None:
            if revision is not None:
                observe(time.monotonic() - began)
                won.inc()
            done(revision)

        self._inner.put_soon(key, value, expected=expected, ttl=ttl, done=written)


def _tag(message: Event | Order) -> str:
    return str(message.__struct_config__.tag)

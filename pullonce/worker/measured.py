"""How orders are carried out, measured: a handler is wrapped, and knows nothing of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import wraps

from pullonce.errors import Permanent, Retryable
from pullonce.telemetry.metrics import FewLabels, Meter
from pullonce.worker.worker import Failure, GiveUp, Handler
from schemas import events
from schemas.events import Event
from schemas.orders import FetchBlob, Order


class WorkMeter:
    """Measures how orders are carried out, and what came of them."""

    def __init__(self, meter: Meter) -> None:
        self._orders = meter.counter("orders_total", "Orders that ended here, by kind and how.", ("kind", "outcome"))
        self._running = meter.gauge("orders_in_progress", "Orders that are carried out now.", ("kind",))
        self._took = meter.histogram("order_duration_seconds", "From taking an order to its facts.", ("kind", "outcome"))
        self._steps = meter.histogram("step_duration_seconds", "What each step of an order took.", ("kind", "step"))
        self._failures = meter.counter("failures_total", "Orders that were given up for good.", ("kind", "code"))
        self._blobs = meter.counter("blobs_total", "Blobs that were said to be there.", ("registry", "outcome"))
        self._fetched = meter.counter("fetched_bytes_total", "Bytes of blobs that were fetched, as stored.", ("registry",))
        self._layers = meter.counter("layers_total", "Layers that were said to be unpacked.", ("outcome",))
        self._unpacked = meter.counter("unpacked_bytes_total", "Bytes of file content in layers that were unpacked.")
        self._registries, self._codes = FewLabels(), FewLabels()

    def measured(self, handler: Handler) -> Handler:
        """A handler whose calls are measured."""

        @wraps(handler)
        async def carry_out(order: Order) -> Sequence[Event]:
            kind, began, outcome = _kind(order), time.monotonic(), "interrupted"
            with self._running.labels(kind).track_inprogress():
                try:
                    facts = await handler(order)
                    outcome = "done"
                except Retryable:
                    outcome = "again"
                    raise
                except Permanent:
                    outcome = "failed"
                    raise
                except Exception:
                    outcome = "defect"
                    raise
                finally:
                    self._orders.labels(kind, outcome).inc()
                    self._took.labels(kind, outcome).observe(time.monotonic() - began)
            for fact in facts:
                self._note(order, fact)
            return facts

        return carry_out

    def giving_up(self, give_up: GiveUp) -> GiveUp:
        """What makes the facts of failures, with each of them counted."""

        def make(order: Order, failure: Failure) -> Event:
            self._failures.labels(_kind(order), self._codes.of(failure.code)).inc()
            return give_up(order, failure)

        return make

    def _note(self, order: Order, fact: Event) -> None:
        for step, seconds in getattr(fact, "seconds", {}).items():
            self._steps.labels(_kind(order), step).observe(seconds)
        match fact:
            case events.BlobFetched(reused=reused, size=size) if isinstance(order, FetchBlob):
                registry = self._registries.of(order.source.registry)
                self._blobs.labels(registry, "reused" if reused else "fetched").inc()
                self._fetched.labels(registry).inc(0 if reused else size)
            case events.LayerUnpacked(reused=reused, size=size):
                self._layers.labels("reused" if reused else "unpacked").inc()
                self._unpacked.inc(0 if reused else size)


def _kind(order: Order) -> str:
    return str(order.__struct_config__.tag)

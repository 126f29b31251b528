"""Counts and times for Prometheus, named by its conventions: seconds and bytes, `_total` for what only grows.

A meter belongs to one process and hands itself down; nothing here is global. Handlers and ports are measured from outside, by
wrapping them, so that neither knows of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import wraps

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pullonce.errors import Permanent, Retryable
from pullonce.worker.worker import Failure, GiveUp, Handler
from schemas import events
from schemas.events import Event
from schemas.orders import FetchBlob, Order

PREFIX = "pullonce"

STEPS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1200.0)
"""Seconds between which times are told apart: from a look at the disk to a large layer over a thin line."""

_MOST = 100
"""Values of a label that comes from outside; what comes after them is `other`."""


class Meter:
    """The metrics of one process.

    Args:
        service: its kind.
        store: the store it serves; empty where it serves all.
        version: of pullonce.
    """

    def __init__(self, service: str, store: str, version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each count, which nobody asks for
        self.registry = CollectorRegistry()
        PlatformCollector(registry=self.registry)
        ProcessCollector(registry=self.registry)
        labels = {"service": service, "store": store, "version": version}
        self.gauge("build_info", "The process: its kind, store and version.", tuple(labels)).labels(**labels).set(1)

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", meaning, labels, registry=self.registry)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks for the metrics."""
        self.gauge(name, meaning).set_function(value)

    def histogram(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", meaning, labels, buckets=STEPS, registry=self.registry)

    def shown(self) -> tuple[bytes, str]:
        """All metrics in the text format, and its media type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class Few:
    """Values of a label, as many as are good for a time series each."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """The value itself while there are few; `other` for every further one."""
        if value in self._known:
            return value
        if len(self._known) >= _MOST:
            return "other"
        self._known.add(value)
        return value


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
        self._registries, self._codes = Few(), Few()

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

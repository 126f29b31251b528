"""Counts and times for Prometheus, named by its conventions: seconds and bytes, `_total` for what only grows.

A meter belongs to one process and hands itself down; nothing here is global. Handlers and ports are measured from outside, by
wrapping them, so that neither knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


class FewLabels:
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

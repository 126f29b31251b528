"""What the mirror did, for the answer to a ping and for metrics."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(slots=True)
class Counts:
    """Since the process began."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By kind of thing and status of HTTP."""
    bytes: int = 0
    """Of blobs, that were sent."""
    followed: int = 0
    """Blobs that were sent while they grew."""
    broken: int = 0
    """Blobs whose connection was broken off."""
    turned_away: int = 0
    """Connections above the limit."""


class _Meter(Protocol):
    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None: ...


def measure(meter: _Meter, counts: Counts) -> None:
    """Show them among the metrics of the process."""
    meter.watch("mirror_requests", "Requests that the mirror answered since it began.", lambda: counts.requests.total())
    meter.watch("mirror_blob_bytes", "Bytes of blobs that the mirror sent since it began.", lambda: counts.bytes)
    meter.watch("mirror_followed", "Blobs that the mirror sent while they came in.", lambda: counts.followed)
    meter.watch("mirror_broken", "Blobs whose connection the mirror broke off.", lambda: counts.broken)
    meter.watch("mirror_turned_away", "Connections above the limit of the mirror.", lambda: counts.turned_away)

"""Time for the memory twin that a test advances."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from pullonce.bus.memory.clock import Timer


class _Due:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class ManualClock:
    """Stands still until it is advanced; then whatever is due happens, in order of its time."""

    def __init__(self) -> None:
        self._now = 0.0
        self._count = itertools.count()
        self._due: list[tuple[float, int, _Due]] = []

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        due = _Due(call)
        heapq.heappush(self._due, (self._now + max(delay, 0.0), next(self._count), due))
        return due

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what falls due on the way."""
        end = self._now + seconds
        while self._due and self._due[0][0] <= end:
            self._now, _, due = heapq.heappop(self._due)
            if due.call is not None:
                due.call()
        self._now = end

    @property
    def next_due(self) -> float | None:
        """Seconds until something is due; None: nothing is."""
        while self._due and self._due[0][2].call is None:
            heapq.heappop(self._due)
        return self._due[0][0] - self._now if self._due else None

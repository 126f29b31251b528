"""A memory with a bound: what was not asked for longest goes first, and, where that is said, what is too old."""

import time
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """The latest `most` values by key.

    Args:
        seconds: that a value is remembered for.
    """

    def __init__(self, most: int, *, seconds: float = float("inf")) -> None:
        self._most = most
        self._seconds = seconds
        self._values: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        """The value of a key; None where there is none, or none that is young enough."""
        found = self._values.pop(key, None)
        if found is None or found[0] <= time.monotonic():
            return None
        self._values[key] = found
        return found[1]

    def put(self, key: K, value: V) -> None:
        """Remember a value, and forget the oldest where there are too many."""
        self._values.pop(key, None)
        self._values[key] = (time.monotonic() + self._seconds, value)
        while len(self._values) > self._most:
            del self._values[next(iter(self._values))]

    def drop(self, key: K) -> None:
        """Forget a key."""
        self._values.pop(key, None)

    def __len__(self) -> int:
        return len(self._values)

"""How many keys of one kind are out at a time, and whose turn it is next: a flood by one costs the others little. Pure.

A client can open twenty thousand flights in a second, and a registry that drips can keep what was ordered of it for hours. Were
all of it ordered at once, whoever asks next, be it for an image that is there, would stand behind them, and workers' hands
would be full. So only so many are out at a time, for each registry and for each store, and the rest waits here. An image
that was pulled before does not wait to be resolved: it costs a question, and nobody can have ordered much of it in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

SWEPT = 1024
"""Out at a time, in all, before those that nobody waits for any more are looked for: known images ask no leave."""
REMEMBERED = 20_000
"""Flights whose image was pulled before."""

Place = tuple[str, str]
"""Store and registry."""


class Admission:
    """The turn of each key of one kind. Whoever may not go now is named by `next` later.

    Args:
        of_a_registry: how many may be out at a time for one store and registry.
        of_a_store: how many for one store.
    """

    def __init__(self, of_a_registry: int, of_a_store: int) -> None:
        self._of_a_registry = of_a_registry
        self._of_a_store = of_a_store
        self._out: dict[str, Place] = {}
        self._count: Counter[Place | str] = Counter()
        self._waiting: dict[Place, dict[str, None]] = {}
        self._queued: dict[str, set[Place]] = {}
        self._clear_at = SWEPT
        self._known: dict[str, None] = {}
        self._sweep_at = SWEPT

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queued)

    def is_waiting(self, key: str) -> bool:
        """A key has not had its turn yet."""
        return key in self._queued

    def completed(self, flight: str) -> None:
        """The image of a flight key was pulled."""
        self._known.pop(flight, None)
        self._known[flight] = None
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def may_go(self, key: str, flight: str, place: Place, *, wanted: Callable[[str], bool]) -> bool:
        """Whether a key may be pursued now; otherwise it is given out by `next`.

        Args:
            flight: its flight key.
            wanted: whether somebody waits for a key.
        """
        if key in self._out:
            return True
        if flight not in self._known:
            if place not in self._waiting and not self._has_room(place):
                self.sweep(wanted)
            if place in self._waiting or not self._has_room(place):
                self.join(key, place)
                if len(self._queued) >= self._clear_at:
                    for each in [each for each in self._queued if not wanted(each)]:
                        self._leave_queues(each)
                    self._clear_at = max(SWEPT, 2 * len(self._queued))
                return False
        if len(self._out) >= self._sweep_at:
            self.sweep(wanted)
            self._sweep_at = max(SWEPT, 2 * len(self._out))
        self._go(key, place)
        return True

    def join(self, key: str, place: Place) -> None:
        self._waiting.setdefault(place, {})[key] = None
        self._queued.setdefault(key, set()).add(place)

    def done(self, key: str) -> None:
        """Nobody waits for a key any more, or it has come: another may have its place."""
        place = self._out.pop(key, None)
        if place is not None:
            for counted in (place, place[0]):
                self._count[counted] -= 1
                if not self._count[counted]:
                    del self._count[counted]

    def sweep(self, wanted: Callable[[str], bool]) -> None:
        """Those that nobody waits for any more are not out: resolved, failed, or left."""
        for key in [key for key in self._out if not wanted(key)]:
            self.done(key)

    def next(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Those whose turn it is now; one of each registry after the other."""
        ready = [place for place in self._waiting if self._has_room(place)]
        while ready:
            for place in ready:
                if place not in self._waiting or not self._has_room(place):
                    continue
                queue = self._waiting.pop(place)
                self._waiting[place] = queue  # behind all others: who had a turn is last
                key = next(iter(queue))
                self._leave_queues(key)
                if wanted(key):
                    self._go(key, place)
                    yield key
            ready = [place for place in ready if place in self._waiting and self._has_room(place)]

    def _has_room(self, place: Place) -> bool:
        return self._count[place] < self._of_a_registry and self._count[place[0]] < self._of_a_store

    def _go(self, key: str, place: Place) -> None:
        self._leave_queues(key)
        if key in self._out:
            return
        self._out[key] = place
        self._count[place] += 1
        self._count[place[0]] += 1

    def _leave_queues(self, key: str) -> None:
        for place in self._queued.pop(key, ()):
            queue = self._waiting[place]
            del queue[key]
            if not queue:
                del self._waiting[place]

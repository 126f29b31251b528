"""The flights that have not ended, by name and by store; and those from before the mark whose endings are to come. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from schemas.events import PullFailed, PullRequested
from services.coordinator.flight import Ending, Flight

GONE = "request.gone"
"""Code of a flight whose requests have been cut off the log: nobody can say any more what was asked for."""

_WHY = "its requests have been cut off the event log, which keeps only so much: ask again"


class InFlight:
    """What is in flight."""

    def __init__(self) -> None:
        self.by_name: dict[str, Flight] = {}
        self._in_store: dict[str, dict[str, Flight]] = {}
        self._before: dict[str, tuple[int, int]] = {}
        self._first = 0

    def begin(self, before: Mapping[str, tuple[int, int]], first: int) -> None:
        """Begin at a mark.

        Args:
            before: flights that were opened before the mark and ended after it: name → the position that opened each, `covers`.
            first: where the log begins, if it lacks something that the board should have read; else 0.
        """
        self._before = dict(before)
        self._first = first

    def all(self) -> Iterator[Flight]:
        yield from self.by_name.values()

    def in_store(self, store: str) -> Iterator[Flight]:
        yield from self._in_store.get(store, {}).values()

    def add(self, flight: Flight) -> None:
        self.by_name[flight.name] = self._in_store.setdefault(flight.store, {})[flight.name] = flight

    def remove(self, flight: Flight) -> None:
        del self.by_name[flight.name]
        here = self._in_store[flight.store]
        del here[flight.name]
        if not here:
            del self._in_store[flight.store]

    # -- what lies before the mark -------------------------------------------------------------------------------------

    def answered(self, name: str, sequence: int) -> bool:
        """A request is for a flight from before the mark, whose ending answers it."""
        before = self._before.get(name)
        return before is not None and sequence < before[1]

    def ended(self, ending: Ending) -> Flight | None:
        """The flight that an ending, just folded, is of."""
        before = self._before.get(ending.flight)
        if before is not None and before[0] == ending.opened:
            del self._before[ending.flight]
        flight = self.by_name.get(ending.flight)
        if flight is None or flight.opened == ending.opened:
            return flight
        # Requests that are left of a flight whose first ones were cut off look like a flight of their own.
        return flight if self._first and flight.opened < ending.covers else None

    def open(self, request: PullRequested, sequence: int, name: str, reference: str, platform: str) -> Flight:
        """A flight for a request that found none. Has it ended, it is one from before the mark, which this request came too
        late for: then its ending opens the next."""
        opened, covers = self._before.get(name, (sequence, 0))
        flight = Flight(name, replace(request, reference=reference, platform=platform), opened)
        if covers:
            flight.fail(covers - 1, "", code=GONE, message=_WHY)
        self.add(flight)
        return flight

    # -- what was cut off the log --------------------------------------------------------------------------------------

    def missed(self, *, store: str, reference: str, name: str, opened: int) -> PullFailed | None:
        """The ending of a flight that a fact speaks of and whose request was cut off the log.

        Only where the log lacks what should have been read, and no later flight of the same key is there: of all others the
        log tells how they end.
        """
        if opened >= self._first or name in self.by_name:
            return None
        flight = Flight(name, PullRequested(store=store, reference=reference), opened)
        self.add(flight)
        return flight.fail(self._first - 1, "", code=GONE, message=_WHY)

    def cut_off(self, first: int, position: int) -> list[PullFailed]:
        """Endings for flights that go on although their requests are not in the log any more, which begins at `first`."""
        old = [each for each in self.all() if each.opened < first and each.ending is None]
        return [flight.failure(position, code=GONE, message=_WHY) for flight in old]

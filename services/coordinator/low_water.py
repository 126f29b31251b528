"""Finds the low-water mark of a board that follows the log. Pure.

A candidate is taken at the present position: what is in flight there, and what a fold from there would have to know. It becomes
the mark once all that was in flight has ended. One flight that takes long holds back the mark, and nothing else.
"""

from __future__ import annotations

import msgspec

from schemas.events import Event, PullCompleted, PullFailed
from services.coordinator.board import Board
from services.coordinator.mark import Mark

_ENDINGS = (PullCompleted, PullFailed)


class LowWater:
    """Told of every event after the board has folded it; holds one candidate at a time."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._candidate: Mark | None = None
        self._open: dict[str, int] = {}
        """Flights that were in flight at the candidate and still are: name → the position that opened each."""
        self._ended: dict[str, tuple[int, int]] = {}
        self._due = False

    def note(self, event: Event) -> None:
        """Take in an event that was just folded."""
        if self._open and isinstance(event, _ENDINGS) and self._open.get(event.flight) == event.opened:
            del self._open[event.flight]
            self._ended[event.flight] = (event.opened, event.covers)
        if self._due:
            self._begin()

    def look(self) -> Mark | None:
        """The mark that the candidate has become, if it has; then the next one begins."""
        if self._candidate is None:
            self._begin()
            return None
        flights = self._board.flights
        if any(name not in flights or flights[name].opened != opened for name, opened in self._open.items()):
            self._begin()  # one ended by the ending of an earlier flight, whose requests were cut off: nobody can say of it how
            return None
        if self._open:
            return None
        found = msgspec.structs.replace(self._candidate, seen=self._board.position, flights=self._ended)
        self._candidate = None
        self._begin()
        return found

    def _begin(self) -> None:
        """Take a candidate here, or at the next position at which no request waits for an ending that does not cover it: such a
        request lies before the candidate and opens a flight behind it."""
        board = self._board
        self._due = any(flight.late for flight in board.in_flight.all())
        if self._due:
            return
        orders = {key.name: key.claimed for key in board.waits.all() if key.ordered}
        self._candidate = Mark(position=board.position, orders=orders, incarnations=dict(board.incarnations))
        self._open = {flight.name: flight.opened for flight in board.in_flight.all()}
        self._ended = {}

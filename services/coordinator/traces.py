"""Which trace each flight in the air belongs to: that of its first request which named one."""

from __future__ import annotations

from pullonce.bus import Recorded
from pullonce.errors import PlatformInvalid, ReferenceInvalid
from pullonce.identity import identify_request
from schemas.events import PullCompleted, PullFailed, PullRequested
from services.coordinator.board import Board


class Traces:
    """The traces of the flights of a board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._of: dict[str, str] = {}

    def note(self, recorded: Recorded) -> None:
        """Take in what the log says."""
        if not (recorded.trace or self._of):
            return
        match recorded.event:
            case PullRequested() as request if recorded.trace:
                try:
                    self._of.setdefault(identify_request(request).flight, recorded.trace)
                except (ReferenceInvalid, PlatformInvalid):
                    pass  # refused at once; its ending follows from nothing
            case PullCompleted(flight=flight) | PullFailed(flight=flight):
                self._of.pop(flight, None)

    def of_flight(self, flight: str) -> str:
        """The trace of a flight; empty: none."""
        return self._of.get(flight, "")

    def of_key(self, key: str) -> str:
        """The trace of whoever waits for a key first and has one."""
        known = self._board.waits.keys.get(key) if self._of else None
        return next((self._of[flight] for flight in known.waiters if flight in self._of), "") if known else ""

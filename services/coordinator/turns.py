"""Who waits for a turn before an order is given for them: what opens flights, and what floods would fill workers with. Pure.

Listing an image never waits. A layer waits apart from its blob, so that neither keeps a place which the other needs; what has
been ordered once is ordered again without asking, since a layer above it, which has its place, may wait for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from schemas.events import BlobLost, Event, LayerLost, PullCompleted, PullFailed, PullResolved, StoreOpened
from services.coordinator.admission import Admission, Place
from services.coordinator.board import Board
from services.coordinator.flight import Flight
from services.coordinator.intents import End, Intent, Settle

RESOLVED = 32
"""References of one store and registry that are resolved at a time: as many as two fetchers work on."""
RESOLVED_OF_A_STORE = 128
CONTENT = 128
"""Blobs of one store and registry that are out at a time, and layers likewise: more than fetchers take of one at once."""
CONTENT_OF_A_STORE = 1024
"""What a fetcher, or an unpacker, has in hand of one kind of order."""

_ENDINGS = (PullCompleted, PullFailed)


class Turns:
    """Admissions by the noun of a key."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._lost = False
        self._resolving = Admission(RESOLVED, RESOLVED_OF_A_STORE)
        self._by_noun = {
            "resolve": self._resolving,
            "blob": Admission(CONTENT, CONTENT_OF_A_STORE),
            "layer": Admission(CONTENT, CONTENT_OF_A_STORE),
        }

    @property
    def waiting(self) -> int:
        """How many keys wait for their turn."""
        return sum(each.waiting for each in self._by_noun.values())

    def is_waiting(self, name: str) -> bool:
        """A key has not had its turn yet."""
        return any(each.is_waiting(name) for each in self._by_noun.values())

    def may_go(self, name: str) -> bool:
        """Whether a key may be pursued now; otherwise `next` gives it out."""
        admission = self._of(name)
        key = self._board.waits.key(name) if admission is not None else None
        if admission is None or key is None or not key.waiters:
            return True
        if (key.claimed or self._lost) and admission is not self._resolving:
            return True
        flight = key.chosen
        return admission.may_go(name, flight.name, _place(flight), wanted=self._board.waits.is_wanted)

    def completed(self, flight: str) -> None:
        """The image of a flight key was pulled."""
        self._resolving.completed(flight)

    def note(self, event: Event, intents: Sequence[Intent]) -> None:
        """What an event was folded to: places may be free again. Where nobody waits for one, somebody will look."""
        self._lost = isinstance(event, BlobLost | LayerLost | StoreOpened)
        waited_for = [each for each in self._by_noun.values() if each.waiting]
        if not waited_for:
            return
        wanted, ended = self._board.waits.is_wanted, isinstance(event, _ENDINGS)
        for intent in intents:
            if isinstance(intent, Settle):
                if (admission := self._of(intent.key)) in waited_for and not wanted(intent.key):
                    admission.done(intent.key)
            elif isinstance(intent, End):
                ended = True
        if isinstance(event, PullResolved) and (flight := self._board.flights.get(event.flight)) is not None:
            for name in flight.missing:
                if (admission := self._of(name)) is not None and admission.is_waiting(name):
                    admission.join(name, _place(flight))
        if ended:  # a flight that ends waits for nothing any more, whatever that was
            for each in waited_for:
                each.sweep(wanted)

    def next(self) -> Iterator[str]:
        """Keys whose turn it is now."""
        for admission in self._by_noun.values():
            if admission.waiting:
                yield from admission.next(self._board.waits.is_wanted)

    def _of(self, name: str) -> Admission | None:
        return self._by_noun.get(name[: name.find(".")])


def _place(flight: Flight) -> Place:
    return flight.store, flight.reference[: flight.reference.find("/")]

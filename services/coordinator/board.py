"""All flights in flight, and who waits for what: the pure fold of the log.

    board.apply(event, sequence) → intents

Every coordinator folds the same log and reaches the same board, so there is nothing to hand over. What the board wants done
comes out as intents; who does it is decided by the claims. `apply` reports what one event made wanted; `intents` reports
everything that is wanted now, for a coordinator that has just caught up.

What the board believes about a disk is a cache. The disk decides: a fetcher says with each `pull.resolved` what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pullonce.errors import PlatformInvalid, ReferenceInvalid
from pullonce.pulling.identity import flight_fields, identify_request
from schemas import subjects
from schemas.events import (
    CONTENT_MISSING,
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Event,
    LayerClaimed,
    LayerFailed,
    LayerLost,
    LayerUnpacked,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullRecorded,
    PullRequested,
    PullResolved,
    PullUnrecorded,
    PullUnresolved,
    StoreOpened,
)
from services.coordinator.flight import Ending, Flight, FlightState, Piece, pieces
from services.coordinator.in_flight import InFlight
from services.coordinator.intents import End, Intent
from services.coordinator.mark import Mark
from services.coordinator.waits import Waits

_REFUSALS = ("reference.invalid", "platform.invalid")
"""Codes of what cannot be asked for: there is nothing to resolve, now or later."""


class Board:
    """The fold. Not thread-safe; `position` is the last folded sequence."""

    def __init__(self, mark: Mark | None = None, first: int = 1) -> None:
        self.position = 0
        self.in_flight = InFlight()
        self.incarnations: dict[str, str] = {}
        """Store → the incarnation in which it is served."""
        self._reopened: dict[str, int] = {}
        """Store → where its incarnation changed last."""
        self._intents: list[Intent] = []
        self.waits = Waits(self._intents)
        self._rules: dict[type[Event], Callable[..., None]] = {
            PullRequested: self._requested,
            PullResolved: self._resolved,
            PullUnresolved: self._unresolved,
            PullRecorded: self._recorded,
            PullUnrecorded: self._unrecorded,
            PullCompleted: self._ended,
            PullFailed: self._ended,
            PullCancelled: self._cancelled,
            BlobClaimed: lambda e, at: self._claimed(subjects.blob_key(e.store, e.digest), e, at),
            BlobFetched: lambda e, at: self._settled(subjects.blob_key(e.store, e.digest), e, at),
            BlobFailed: lambda e, at: self._failed(subjects.blob_key(e.store, e.digest), e, at),
            BlobLost: lambda e, at: self._lost(subjects.blob_key(e.store, e.digest), at),
            LayerClaimed: lambda e, at: self._claimed(subjects.layer_key(e.store, e.chain_id), e, at),
            LayerUnpacked: lambda e, at: self._settled(subjects.layer_key(e.store, e.chain_id), e, at),
            LayerFailed: lambda e, at: self._failed(subjects.layer_key(e.store, e.chain_id), e, at),
            LayerLost: lambda e, at: self._lost(subjects.layer_key(e.store, e.chain_id), at),
            StoreOpened: self._store_opened,
        }

        self.begin(mark or Mark(), first)

    def begin(self, mark: Mark, first: int) -> None:
        """Begin at a mark, before anything is folded.

        Args:
            mark: what a fold from there must know of what lies before.
            first: the first message that the log still has. One behind the mark: what this board should have read is gone.
        """
        self.position = max(mark.position, first - 1)
        self.in_flight.begin(mark.flights, first if first - 1 > mark.position else 0)
        self.incarnations.update(mark.incarnations)
        for name, revision in mark.orders.items():
            self.waits.resume(name, revision, mark.position)

    @property
    def flights(self) -> dict[str, Flight]:
        """What is in flight, by name."""
        return self.in_flight.by_name

    def apply(self, event: Event, sequence: int) -> list[Intent]:
        """Fold one event; returns what it made wanted. A sequence that was folded before changes nothing."""
        if sequence <= self.position:
            return []
        self.position = sequence
        self._rules[type(event)](event, sequence)
        if self.waits.expiring <= sequence:
            self.waits.expire(sequence)
        if not self._intents:
            return []
        intents = self._intents.copy()
        self._intents.clear()
        return intents

    def intents(self) -> Iterator[Intent]:
        """Everything that is wanted now, whether or not somebody is at it: each key once."""
        for flight in self.flights.values():
            if flight.ending is not None:
                yield End(flight.ending, flight.ended_by)
        yield from self.waits.everything()

    def flight_in_air(self, ending: Ending) -> bool:
        """The flight of an ending is still here: its ending has not been folded."""
        flight = self.flights.get(ending.flight)
        return flight is not None and flight.opened == ending.opened

    # -- a pull --------------------------------------------------------------------------------------------------------

    def _requested(self, event: PullRequested, sequence: int) -> None:
        try:
            identity = identify_request(event)
        except ReferenceInvalid as exc:
            self._refuse(event, sequence, "reference.invalid", str(exc))
            return
        except PlatformInvalid as exc:
            self._refuse(event, sequence, "platform.invalid", str(exc))
            return
        name = identity.flight
        if self.in_flight.answered(name, sequence):
            return
        flight = self.in_flight.by_name.get(name)
        if flight is None:
            flight = self.in_flight.open(event, sequence, name, identity.reference, identity.platform)
            if flight.ending is None:
                self.waits.wait(flight, flight.resolve_key)
        if flight.ending is not None:
            flight.late += 1
        else:
            flight.requests += 1
        flight.requesters.came(sequence, event.seal)
        flight.last_request = sequence

    def _refuse(self, event: PullRequested, sequence: int, code: str, reason: str) -> None:
        """What was asked for cannot be: a flight of its own, that ends where it opens."""
        name = subjects.flight_of(event.reference, flight_fields(event))
        if self.in_flight.answered(name, sequence):
            return
        flight = self.flights.get(name)
        flight = flight or self.in_flight.open(event, sequence, name, event.reference, event.platform)
        if flight.ending is not None:
            flight.late += 1
            flight.last_request = sequence
            return
        flight.requests = 1
        self._end(flight.fail(sequence, "", code=code, message=reason), "")

    def _resolved(self, event: PullResolved, sequence: int) -> None:
        flight = self._current(event)
        if flight is not None and flight.state is not FlightState.RESOLVING:
            flight = None
        if flight is not None:
            self.waits.leave(flight, flight.resolve_key, sequence)
        layers = pieces(event)
        there = self._look(event, layers, sequence)
        if flight is None:
            self._miss(event)
            return
        for name in flight.adopt(event, layers):
            if name in there:
                flight.how[name] = "reused"
                continue
            key = self.waits.of(name)
            if key.settled:
                flight.how[name] = "reused"
            else:
                flight.how[name] = "waited" if key.waiters else "ours"
                self.waits.wait(flight, name)
        self._advance(flight, sequence, flight.resolve_key)

    def _look(self, event: PullResolved, layers: list[Piece], sequence: int) -> set[str]:
        """What the disk held after a flight was opened. It knows better than facts from before that, whoever's flight it is.

        Returns the keys of what is there and of which nothing is known: of what is present, nothing need be remembered.
        """
        there: set[str] = set()
        opened, known = event.opened, self.waits.key
        reopened = self._reopened.get(event.store, 0)
        for layer, *names in layers:
            for name, on_disk in zip(names, (layer.fetched, layer.unpacked), strict=True):
                key = known(name)
                if on_disk:
                    # What was lost since the flight opened may have been seen a moment before: then the worker looks again.
                    if key is None and reopened <= opened:
                        there.add(name)
                    elif key is not None and not key.settled and max(key.since, reopened) <= opened:
                        self._settle(name, sequence)
                elif name and (key is None or key.settled <= opened):
                    self.waits.lose(name, sequence)
        return there

    def _recorded(self, event: PullRecorded, sequence: int) -> None:
        flight = self._recording(event)
        if flight is None:
            self._miss(event)
            return
        if flight.again:
            self._record_again(flight, sequence, event.revision)
            return
        self.waits.leave(flight, flight.record_key, sequence)
        flight.recorded = True
        self._advance(flight, sequence, flight.record_key)

    def _unresolved(self, event: PullUnresolved, sequence: int) -> None:
        flight = self._current(event)
        if flight is not None and flight.state is FlightState.RESOLVING:
            self._fail(flight, sequence, flight.resolve_key, event.code, event.message)
        else:
            self._miss(event)

    def _unrecorded(self, event: PullUnrecorded, sequence: int) -> None:
        flight = self._recording(event)
        if flight is None:
            self._miss(event)
            return
        if event.code == CONTENT_MISSING:
            self._record_again(flight, sequence, event.revision)
        else:
            self._fail(flight, sequence, flight.record_key, event.code, event.message)

    def _cancelled(self, event: PullCancelled, sequence: int) -> None:
        flight = self.flights.get(event.flight)
        if flight is None or flight.ending is not None or not flight.requesters.leaves(event.request, event.secret):
            return
        flight.requests -= 1
        if flight.requests <= 0:
            self._fail(flight, sequence, "", "pull.cancelled", "everybody who asked for it has left")

    def _ended(self, event: Ending, sequence: int) -> None:
        flight = self.in_flight.ended(event)
        if flight is None:
            return
        self.waits.forget(flight, sequence)
        self.in_flight.remove(flight)
        if flight.last_request < event.covers:
            return
        following = flight.reopened(sequence, event.covers)
        self.in_flight.add(following)
        if isinstance(event, PullFailed) and event.code in _REFUSALS:
            self._end(following.fail(sequence, "", code=event.code, message=event.message), "")
        else:
            self.waits.wait(following, following.resolve_key)

    def _miss(self, event: PullResolved | PullUnresolved | PullRecorded | PullUnrecorded) -> None:
        """A fact of no flight that is known: was its request cut off the log, whoever asked is told so."""
        about = {"store": event.store, "reference": event.reference, "name": event.flight, "opened": event.opened}
        if (ending := self.in_flight.missed(**about)) is not None:  # type: ignore[arg-type]
            self._end(ending, "")

    # -- a key ---------------------------------------------------------------------------------------------------------

    def _claimed(self, name: str, event: BlobClaimed | LayerClaimed, sequence: int) -> None:
        if (failure := self.waits.claim(name, event, sequence)) is not None:
            self._failed(name, failure, sequence)

    def _settled(self, name: str, event: BlobFetched | LayerUnpacked, sequence: int) -> None:
        key = self.waits.of(name)
        key.done = max(key.done, event.revision)
        if event.reused:
            for flight in key.waiters.values():
                flight.reused.add(name)
        self._settle(name, sequence)

    def _failed(self, name: str, event: BlobFailed | LayerFailed, sequence: int) -> None:
        for flight in self.waits.fail(name, event, sequence):
            self._fail(flight, sequence, name, event.code, event.message)
        self.waits.want_again(name, sequence)

    def _lost(self, name: str, sequence: int) -> None:
        self.waits.lose(name, sequence)
        for flight in self.in_flight.in_store(subjects.store_of_key(name)):
            if flight.ending is None and name in flight.work:
                # Listed or being listed, it must be again: whoever lists an image looks whether all of it is there.
                flight.recorded = False
                flight.again = flight.state is FlightState.RECORDING
                self.waits.wait(flight, name)

    def _store_opened(self, event: StoreOpened, sequence: int) -> None:
        known = self.incarnations.get(event.store)
        self.incarnations[event.store] = event.incarnation
        if known is None or known == event.incarnation:
            return
        self._reopened[event.store] = sequence
        there = {key.name for key in self.waits.in_store(event.store) if key.settled}
        for flight in self.in_flight.in_store(event.store):
            there.update(name for name in flight.work if name not in flight.missing)
        for name in sorted(there):
            self._lost(name, sequence)

    # -- what follows --------------------------------------------------------------------------------------------------

    def _settle(self, name: str, sequence: int) -> None:
        """A key needs no more work: every flight that waits for it moves on, in this same step."""
        for flight in self.waits.settle(name, sequence):
            self._advance(flight, sequence, name)

    def _advance(self, flight: Flight, sequence: int, by: str) -> None:
        """Level, not edge: look at what a flight still misses, and take the step that this allows."""
        if flight.missing or flight.ending is not None:
            return
        if flight.recorded:
            self._end(flight.complete(sequence, by), by)
        else:
            flight.state = FlightState.RECORDING
            self.waits.wait(flight, flight.record_key)

    def _record_again(self, flight: Flight, sequence: int, revision: int) -> None:
        """What came of listing an image does not count: it is listed anew, once nothing is missing."""
        self.waits.void(flight, flight.record_key, sequence, revision)
        flight.again, flight.state = False, FlightState.WORKING
        self._advance(flight, sequence, flight.record_key)

    def _fail(self, flight: Flight, sequence: int, by: str, code: str, message: str) -> None:
        self._end(flight.fail(sequence, by, code=code, message=message), by)
        self.waits.forget(flight, sequence)

    def _end(self, ending: Ending, by: str) -> None:
        self._intents.append(End(ending, by))

    def _current(self, event: PullResolved | PullUnresolved | PullRecorded | PullUnrecorded) -> Flight | None:
        """The flight an event speaks of, if it is this one's and not an earlier one's of the same key."""
        flight = self.flights.get(event.flight)
        return flight if flight is not None and flight.opened == event.opened else None

    def _recording(self, event: PullRecorded | PullUnrecorded) -> Flight | None:
        """The flight whose image is being listed under the order that an event speaks of."""
        flight = self._current(event)
        if flight is None or flight.state is FlightState.RESOLVING:
            return None
        key = self.waits.of(flight.record_key)
        spent = 0 < event.revision <= key.done
        if flight.state is FlightState.RECORDING and not spent:
            return flight
        key.done = max(key.done, event.revision)  # one that nobody waits for any more
        return None

"""All flights in the air, and who waits for what: the pure fold of the log.

    board.apply(event, sequence) → intents

Every coordinator folds the same log and reaches the same board, so there is no leader. What the board wants done comes out
as intents; who does it is decided by the claims. `apply` reports what one event made wanted; `intents` reports everything
that is wanted now, for a coordinator that has just caught up.

What the board believes about a disk is a cache. The disk decides: a fetcher says with each `pull.resolved` what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pullonce.errors import PlatformInvalid, ReferenceInvalid
from pullonce.pulling.identity import identify_request
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
from services.coordinator.flight import Ending, Flight, State
from services.coordinator.intents import End, Intent
from services.coordinator.waits import Waits

_REFUSALS = ("reference.invalid", "platform.invalid")
"""Codes of what cannot be asked for: there is nothing to resolve, now or later."""


class Board:
    """The fold. Not thread-safe; `position` is the last folded sequence."""

    def __init__(self) -> None:
        self.position = 0
        self.flights: dict[str, Flight] = {}
        self._intents: list[Intent] = []
        self.waits = Waits(self._intents)
        self._incarnations: dict[str, str] = {}
        self._rules: dict[type[Event], Callable[..., None]] = {
            PullRequested: self._requested,
            PullResolved: self._resolved,
            PullUnresolved: self._unresolved,
            PullRecorded: self._recorded,
            PullUnrecorded: self._unrecorded,
            PullCompleted: self._ended,
            PullFailed: self._ended,
            PullCancelled: self._cancelled,
            BlobClaimed: lambda e, q: self.waits.claim(subjects.blob_key(e.store, e.digest), e, q),
            BlobFetched: lambda e, q: self._settled(subjects.blob_key(e.store, e.digest), e, q),
            BlobFailed: lambda e, q: self._failed(subjects.blob_key(e.store, e.digest), e, q),
            BlobLost: lambda e, q: self._lost(subjects.blob_key(e.store, e.digest), q),
            LayerClaimed: lambda e, q: self.waits.claim(subjects.layer_key(e.store, e.chain_id), e, q),
            LayerUnpacked: lambda e, q: self._settled(subjects.layer_key(e.store, e.chain_id), e, q),
            LayerFailed: lambda e, q: self._failed(subjects.layer_key(e.store, e.chain_id), e, q),
            LayerLost: lambda e, q: self._lost(subjects.layer_key(e.store, e.chain_id), q),
            StoreOpened: self._store_opened,
        }

    def apply(self, event: Event, sequence: int) -> list[Intent]:
        """Fold one event; returns what it made wanted. A sequence that was folded before changes nothing."""
        if sequence <= self.position:
            return []
        self.position = sequence
        self._rules[type(event)](event, sequence)
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

    def _requested(self, event: PullRequested, q: int) -> None:
        try:
            identity = identify_request(event)
        except ReferenceInvalid as exc:
            self._refuse(event, q, "reference.invalid", str(exc))
            return
        except PlatformInvalid as exc:
            self._refuse(event, q, "platform.invalid", str(exc))
            return
        flight = self.flights.get(identity.flight)
        if flight is None:
            flight = self._open(event, q, identity.flight, identity.reference, identity.platform)
            self.waits.wait(flight, flight.resolve_key)
        if flight.ending is not None:
            flight.late += 1
        else:
            flight.requests += 1
        flight.last_request = q

    def _open(self, event: PullRequested, q: int, name: str, reference: str, platform: str) -> Flight:
        flight = self.flights[name] = Flight(
            name,
            store=event.store,
            reference=reference,
            platform=platform,
            credential=event.credential,
            policy=event.policy,
            unpack=event.unpack,
            opened=q,
        )
        return flight

    def _refuse(self, event: PullRequested, q: int, code: str, reason: str) -> None:
        """What was asked for cannot be: a flight of its own, that ends where it opens."""
        name = subjects.flight_of(
            store=event.store,
            reference=event.reference,
            platform=event.platform,
            credential=event.credential,
            policy=event.policy,
            unpack=event.unpack,
        )
        flight = self.flights.get(name)
        if flight is not None:
            flight.late += 1
            flight.last_request = q
            return
        flight = self._open(event, q, name, event.reference, event.platform)
        flight.requests = 1
        self._end(flight.fail(q, "", code=code, message=reason), "")

    def _resolved(self, event: PullResolved, q: int) -> None:
        flight = self._current(event)
        if flight is None or flight.state is not State.RESOLVING:
            return
        self.waits.leave(flight, flight.resolve_key, q)
        for name, on_disk in flight.adopt(event):
            key = self.waits.of(name)
            if on_disk and not key.settled and key.since <= flight.opened:
                # What was lost since the flight opened may have been seen a moment before: then the worker looks again.
                self._settle(name, q)
            elif not on_disk and 0 < key.settled <= flight.opened:
                # The disk was asked after the flight opened, so it knows better than a fact from before that.
                self.waits.lose(name, q)
            if key.settled:
                flight.how[name] = "reused"
            else:
                flight.how[name] = "waited" if key.waiters else "ours"
                self.waits.wait(flight, name)
        self._advance(flight, q, flight.resolve_key)

    def _recorded(self, event: PullRecorded, q: int) -> None:
        flight = self._recording(event)
        if flight is None:
            return
        if flight.again:
            self._record_again(flight, q, event.revision)
            return
        self.waits.leave(flight, flight.record_key, q)
        flight.recorded = True
        self._advance(flight, q, flight.record_key)

    def _unresolved(self, event: PullUnresolved, q: int) -> None:
        flight = self._current(event)
        if flight is not None and flight.state is State.RESOLVING:
            self._fail(flight, q, flight.resolve_key, event.code, event.message)

    def _unrecorded(self, event: PullUnrecorded, q: int) -> None:
        flight = self._recording(event)
        if flight is None:
            return
        if event.code == CONTENT_MISSING:
            self._record_again(flight, q, event.revision)
        else:
            self._fail(flight, q, flight.record_key, event.code, event.message)

    def _cancelled(self, event: PullCancelled, q: int) -> None:
        flight = self.flights.get(event.flight)
        if flight is None or flight.ending is not None or not flight.opened <= event.request <= flight.last_request:
            return
        if event.request in flight.cancelled:
            return
        flight.cancelled.add(event.request)
        flight.requests -= 1
        if flight.requests <= 0:
            self._fail(flight, q, "", "pull.cancelled", "everybody who asked for it has left")

    def _ended(self, event: Ending, q: int) -> None:
        flight = self._current(event)
        if flight is None:
            return
        self.waits.forget(flight, q)
        del self.flights[flight.name]
        if flight.last_request < event.covers:
            return
        following = flight.reopened(q)
        self.flights[flight.name] = following
        if isinstance(event, PullFailed) and event.code in _REFUSALS:
            self._end(following.fail(q, "", code=event.code, message=event.message), "")
        else:
            self.waits.wait(following, following.resolve_key)

    # -- a key ---------------------------------------------------------------------------------------------------------

    def _settled(self, name: str, event: BlobFetched | LayerUnpacked, q: int) -> None:
        key = self.waits.of(name)
        key.done = max(key.done, event.revision)
        if event.reused:
            for flight in key.waiters.values():
                flight.reused.add(name)
        self._settle(name, q)

    def _failed(self, name: str, event: BlobFailed | LayerFailed, q: int) -> None:
        for flight in self.waits.fail(name, event, q):
            self._fail(flight, q, name, event.code, event.message)
        self.waits.want_again(name, q)

    def _lost(self, name: str, q: int) -> None:
        self.waits.lose(name, q)
        for flight in self.flights.values():
            if flight.ending is None and name in flight.work:
                # Listed or being listed, it must be again: whoever lists an image looks whether all of it is there.
                flight.recorded = False
                flight.again = flight.state is State.RECORDING
                self.waits.wait(flight, name)

    def _store_opened(self, event: StoreOpened, q: int) -> None:
        known = self._incarnations.get(event.store)
        self._incarnations[event.store] = event.incarnation
        if known is None or known == event.incarnation:
            return
        prefixes = (f"blob.{event.store}.", f"layer.{event.store}.")
        for name in [name for name, key in self.waits.keys.items() if key.settled and name.startswith(prefixes)]:
            self._lost(name, q)

    # -- what follows --------------------------------------------------------------------------------------------------

    def _settle(self, name: str, q: int) -> None:
        """A key needs no more work: every flight that waits for it moves on, in this same step."""
        for flight in self.waits.settle(name, q):
            self._advance(flight, q, name)

    def _advance(self, flight: Flight, q: int, by: str) -> None:
        """Level, not edge: look at what a flight still misses, and take the step that this allows."""
        if flight.missing or flight.ending is not None:
            return
        if flight.recorded:
            self._end(flight.complete(q, by), by)
        else:
            flight.state = State.RECORDING
            self.waits.wait(flight, flight.record_key)

    def _record_again(self, flight: Flight, q: int, revision: int) -> None:
        """What came of listing an image does not count: it is listed anew, once nothing is missing."""
        self.waits.void(flight, flight.record_key, q, revision)
        flight.again, flight.state = False, State.WORKING
        self._advance(flight, q, flight.record_key)

    def _fail(self, flight: Flight, q: int, by: str, code: str, message: str) -> None:
        self._end(flight.fail(q, by, code=code, message=message), by)
        self.waits.forget(flight, q)

    def _end(self, ending: Ending, by: str) -> None:
        self._intents.append(End(ending, by))

    def _current(self, event: PullResolved | PullUnresolved | PullRecorded | PullUnrecorded | Ending) -> Flight | None:
        """The flight an event speaks of, if it is this one's and not an earlier one's of the same key."""
        flight = self.flights.get(event.flight)
        return flight if flight is not None and flight.opened == event.opened else None

    def _recording(self, event: PullRecorded | PullUnrecorded) -> Flight | None:
        """The flight whose image is being listed under the order that an event speaks of."""
        flight = self._current(event)
        if flight is None or flight.state is State.RESOLVING:
            return None
        key = self.waits.of(flight.record_key)
        spent = 0 < event.revision <= key.done
        if flight.state is State.RECORDING and not spent:
            return flight
        key.done = max(key.done, event.revision)  # one that nobody waits for any more
        return None

"""Who waits for which key, and which orders are out. Pure.

A key is one piece of shared work: a blob, a layer, or a step of one flight. Here it becomes wanted, is claimed, settles, fails
and is lost; what that means for the flights that wait for it, the board decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from schemas.events import BlobClaimed, BlobFailed, LayerClaimed, LayerFailed
from schemas.oci import Digest
from schemas.orders import Order, UnpackLayer
from schemas.subjects import blob_key, store_of_key
from services.coordinator.flight import Flight
from services.coordinator.intents import Intent, Settle, Want, Withdraw
from services.coordinator.key import NOBODY, Key, concerned
from services.coordinator.slow import SLOW, Contest, place_failed, place_of, rounds

FORGOTTEN_AFTER = 16_384
"""Positions after which a key is forgotten that nobody waits for and nobody is at. What is known of it is a cache, which the
disk corrects whenever a reference is resolved; this spares the log's busiest minute a few orders that find all in place."""


NEVER = 1 << 63


class Waits:
    """All keys that the log has spoken of lately, by store.

    Args:
        intents: where what becomes wanted is appended.
    """

    def __init__(self, intents: list[Intent]) -> None:
        self.trusted = 0
        """What the log said up to here about queued orders is hearsay: the queue may have lost them in a power cut. Moved by
        the shell whenever it has not watched the bus without a break."""
        self._keys: dict[str, Key] = {}
        self._stores: dict[str, dict[str, Key]] = {}
        """The same keys by store. A key is asked for with every event, and a store hardly ever."""
        self._left: deque[tuple[int, Key]] = deque()
        """Keys that were left without waiters, each with the position: the oldest first."""
        self.expiring = NEVER
        """The position at which there is something to forget."""
        self._intents = intents
        self.contested: set[str] = set()
        """Keys for which some wait who could have them from different places."""

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, name: str) -> Key | None:
        """What is known of a key; None of one that was never spoken of, or not for long."""
        return self._keys.get(name)

    def of(self, name: str) -> Key:
        """What is known of a key; of one that was never spoken of, nothing."""
        key = self._keys.get(name)
        if key is None:
            store = store_of_key(name)
            key = self._keys[name] = Key(name, store)
            keys = self._stores.get(store)
            if keys is None:
                self._stores[store] = {name: key}
            else:
                keys[name] = key
        return key

    def in_store(self, store: str) -> Iterator[Key]:
        """All keys of one store."""
        yield from self._stores.get(store, {}).values()

    def all(self) -> Iterator[Key]:
        for keys in self._stores.values():
            yield from keys.values()

    # -- what is wanted now --------------------------------------------------------------------------------------------

    def everything(self) -> Iterator[Want | Withdraw]:
        """All that is wanted, or is being done for nobody."""
        for key in self.all():
            if key.waiters and not key.settled:
                yield self._want(key)
            elif (withdraw := self._withdrawal(key)) is not None:
                yield withdraw

    def want(self, name: str) -> Want | None:
        """The present want of a key; None when it is settled or nobody waits for it any more."""
        key = self.key(name)
        if key is None or key.settled or not key.waiters:
            return None
        return self._want(key)

    def is_wanted(self, name: str) -> bool:
        """Somebody waits for a key."""
        key = self.key(name)
        return key is not None and not key.settled and bool(key.waiters)

    def in_hand(self, name: str) -> bool:
        """An order for the key is known to be queued or running, and not by hearsay."""
        key = self.key(name)
        return key is not None and self._in_hand(key)

    def unwanted(self, withdraw: Withdraw) -> bool:
        """Still nobody waits for the key, and that same order is still out."""
        key = self.key(withdraw.key)
        return key is not None and self._withdrawal(key) == withdraw

    # -- sources that do not deliver -----------------------------------------------------------------------------------

    def has_rivals(self, name: str) -> bool:
        """Those who wait for a key could have it from different places. What is not so any more is not contested either."""
        key = self.key(name)
        if key is not None and not key.settled and len(key.waiters) > 1 and len(key.places) > 1:
            return True
        self.contested.discard(name)
        return False

    def held_by(self, name: str) -> str:
        """The coordinator that gave the order for a key."""
        key = self.key(name)
        return key.holder if key is not None else ""

    def contest(self, name: str) -> Contest | None:
        """The order that is out for a key, while somebody who waits for it could have it from elsewhere. None where there is no
        such order, or all that it waits for has come."""
        key = self.key(name)
        if key is None or key.settled or not key.waiters or not key.ordered:
            return None
        places = key.places
        place = key.place or place_of(key.chosen.order_for(name))
        if not places - {place}:
            return None
        order = msgspec.structs.replace(key.chosen.order_for(name), revision=key.claimed)
        blob = Digest(place[1]) if isinstance(order, UnpackLayer) else order.blob.digest  # type: ignore[attr-defined]
        if isinstance(order, UnpackLayer) and (bytes_ := self.key(blob_key(order.store, blob))) is not None and bytes_.settled:
            return None
        return Contest(order, place, blob, rounds({*places, place}, key.slow))

    # -- flights come and go -------------------------------------------------------------------------------------------

    def wait(self, flight: Flight, name: str) -> None:
        """Let a flight wait for a key, and want it if nobody is at it."""
        key = self.of(name)
        first = not key.waiters
        key.waiters[flight.name] = flight
        key.order = order = flight.order_for(name)
        if not first and place_of(order) != place_of(next(iter(key.waiters.values())).order_for(name)):
            self.contested.add(name)
        flight.missing.add(key.name)
        if first and not self._in_hand(key):
            self._intents.append(self._want(key, order))

    def leave(self, flight: Flight, name: str, sequence: int) -> None:
        """A key of this flight alone is done."""
        flight.missing.discard(name)
        if self._drop(name):
            self._intents.append(Settle(name, sequence))

    def forget(self, flight: Flight, sequence: int) -> None:
        """Let a flight wait for nothing any more. Work that was ordered goes on while anybody else waits for it."""
        for name in flight.missing:
            if (key := self.key(name)) is not None:
                key.waiters.pop(flight.name, None)
                self._withdraw_if_unwanted(key)
                self._note_left(key, sequence)
        flight.missing.clear()
        for name in (flight.resolve_key, flight.record_key):
            self.leave(flight, name, sequence)

    # -- what happens to a key -----------------------------------------------------------------------------------------

    def claim(self, name: str, event: BlobClaimed | LayerClaimed, sequence: int) -> BlobFailed | LayerFailed | None:
        """An order for it is in the queue. Returns its failure, should that have been folded already."""
        known = self.key(name) is not None
        key = self.of(name)
        if event.revision <= key.claimed:
            return None
        # Of a key that was forgotten, what came of this claim may have been folded long before it: that is hearsay.
        key.claimed, key.claimed_at, key.holder = event.revision, sequence if known else 0, event.holder
        key.place = place_of(key.chosen.order_for(name)) if key.waiters else None
        self._withdraw_if_unwanted(key)
        self._note_left(key, sequence)
        early, key.early = key.early, None
        return early if early is not None and early.revision == event.revision else None

    def resume(self, name: str, revision: int, sequence: int) -> None:
        """An order for it was out at the mark from which this fold begins."""
        key = self.of(name)
        key.claimed, key.claimed_at = revision, sequence

    def settle(self, name: str, sequence: int) -> list[Flight]:
        """It needs no more work. Returns the flights that waited for it."""
        key = self.of(name)
        key.settled, key.order, key.slow = sequence, None, NOBODY
        self.contested.discard(name)
        waiters, key.waiters = key.waiters, {}
        self._intents.append(Settle(name, sequence))
        self._note_left(key, sequence)
        for flight in waiters.values():
            flight.missing.discard(name)
        return list(waiters.values())

    def fail(self, name: str, event: BlobFailed | LayerFailed, sequence: int) -> list[Flight]:
        """An attempt was given up. Returns the flights whose failure this is; see `want_again` for the others.

        It counts under the newest revision that the log has seen claimed. A worker may be faster than whoever says that the
        key was claimed: what it said is kept until then, since else a board that has not read, or has forgotten, that a later
        claim superseded this one would take a late failure for the present one's.
        """
        key = self.of(name)
        key.done = max(key.done, event.revision)
        if event.code == SLOW and key.waiters:
            place = place_failed(event)
            key.slow = {**key.slow, place: key.slow.get(place, 0) + 1}
        self._note_left(key, sequence)
        if key.settled or event.revision < key.claimed:
            return []  # a verified success stands, whoever failed after it; and an old attempt's successor is at work
        if event.revision > key.claimed:
            key.early = event
            return []
        key.since = sequence
        self._intents.append(Settle(name, sequence))
        return [flight for flight in key.waiters.values() if concerned(event, flight, name)]

    def want_again(self, name: str, sequence: int) -> None:
        """Whoever still waits for a key that came to nothing at this position has it ordered anew."""
        key = self.key(name)
        if key is not None and key.waiters and key.since == sequence:
            self._intents.append(self._want(key))

    def lose(self, name: str, sequence: int) -> None:
        """What was there is not any more."""
        key = self.of(name)
        key.settled, key.since = 0, sequence
        self._note_left(key, sequence)

    def void(self, flight: Flight, name: str, sequence: int, revision: int) -> None:
        """What came of an order of this flight alone does not count; the flight stops waiting for it."""
        key = self.of(name)
        key.done, key.since = max(key.done, revision), sequence
        key.waiters.clear()
        flight.missing.discard(name)
        self._intents.append(Settle(name, sequence))

    def expire(self, sequence: int) -> None:
        """Forget what was left long ago. Counted in positions, so that all boards forget alike."""
        left, known = self._left, self._keys
        while left and left[0][0] <= sequence - FORGOTTEN_AFTER:
            at, key = left.popleft()
            if key.touched == at and key.idle and known.get(key.name) is key:
                self._drop(key.name)
        self.expiring = left[0][0] + FORGOTTEN_AFTER if left else NEVER

    def _drop(self, name: str) -> bool:
        key = self._keys.pop(name, None)
        if key is None:
            return False
        keys = self._stores[key.store]
        del keys[name]
        if not keys:
            del self._stores[key.store]
        return True

    def _note_left(self, key: Key, sequence: int) -> None:
        if key.waiters:
            return
        key.slow = NOBODY
        self.contested.discard(key.name)
        if key.touched != sequence:
            key.touched = sequence
            self._left.append((sequence, key))
            if self.expiring == NEVER:
                self.expiring = sequence + FORGOTTEN_AFTER

    def _withdraw_if_unwanted(self, key: Key) -> None:
        if (withdraw := self._withdrawal(key)) is not None:
            self._intents.append(withdraw)

    def _withdrawal(self, key: Key) -> Withdraw | None:
        if key.waiters or key.settled or key.order is None or not key.ordered:
            return None
        return Withdraw(key.name, msgspec.structs.replace(key.order, revision=key.claimed))

    def _in_hand(self, key: Key) -> bool:
        return key.ordered and key.claimed_at > self.trusted

    def _want(self, key: Key, order: Order | None = None) -> Want:
        """Args: order: that of its only waiter, where it is known."""
        hearsay = key.claimed > key.done and key.claimed_at <= self.trusted
        return Want(key.name, order or key.chosen.order_for(key.name), since=key.since, done=key.done, hearsay=hearsay)

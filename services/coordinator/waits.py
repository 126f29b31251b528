"""Who waits for which key, and which orders are out. Pure.

A key is one piece of shared work: a blob, a layer, or a step of one flight. Here it becomes wanted, is claimed, settles, fails
and is lost; what that means for the flights that wait for it, the board decides.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from schemas.events import BlobClaimed, BlobFailed, LayerClaimed, LayerFailed
from services.coordinator.flight import Flight
from services.coordinator.intents import Intent, Settle, Want, Withdraw
from services.coordinator.key import Key, concerned


class Waits:
    """All keys that the log has spoken of.

    Args:
        intents: where what becomes wanted is appended.
    """

    def __init__(self, intents: list[Intent]) -> None:
        self.keys: dict[str, Key] = {}
        self.trusted = 0
        """What the log said up to here about queued orders is hearsay: the queue may have lost them in a power cut. Moved by
        the shell whenever it has not watched the bus without a break."""
        self._intents = intents

    def of(self, name: str) -> Key:
        """What is known of a key; of one that was never spoken of, nothing."""
        return self.keys.get(name) or self.keys.setdefault(name, Key())

    # -- what is wanted now --------------------------------------------------------------------------------------------

    def everything(self) -> Iterator[Want | Withdraw]:
        """All that is wanted, or is being done for nobody."""
        for name, key in self.keys.items():
            if key.waiters and not key.settled:
                yield self._want(name, key)
            elif (withdraw := self._withdrawal(name, key)) is not None:
                yield withdraw

    def want(self, name: str) -> Want | None:
        """The present want of a key; None when it is settled or nobody waits for it any more."""
        key = self.keys.get(name)
        if key is None or key.settled or not key.waiters:
            return None
        return self._want(name, key)

    def in_hand(self, name: str) -> bool:
        """An order for the key is known to be queued or running, and not by hearsay."""
        key = self.keys.get(name)
        return key is not None and self._in_hand(key)

    def unwanted(self, withdraw: Withdraw) -> bool:
        """Still nobody waits for the key, and that same order is still out."""
        key = self.keys.get(withdraw.key)
        return key is not None and self._withdrawal(withdraw.key, key) == withdraw

    # -- flights come and go -------------------------------------------------------------------------------------------

    def wait(self, flight: Flight, name: str) -> None:
        """Let a flight wait for a key, and want it if nobody is at it."""
        key = self.of(name)
        first = not key.waiters
        key.waiters[flight.name] = flight
        key.order = flight.order_for(name)
        flight.missing.add(name)
        if first and not self._in_hand(key):
            self._intents.append(self._want(name, key))

    def leave(self, flight: Flight, name: str, q: int) -> None:
        """A key of this flight alone is done."""
        flight.missing.discard(name)
        if self.keys.pop(name, None) is not None:
            self._intents.append(Settle(name, q))

    def forget(self, flight: Flight, q: int) -> None:
        """Let a flight wait for nothing any more. Work that was ordered goes on while anybody else waits for it."""
        for name in flight.missing:
            if (key := self.keys.get(name)) is not None:
                key.waiters.pop(flight.name, None)
                self._drop_if_unwanted(name, key)
        flight.missing.clear()
        for name in (flight.resolve_key, flight.record_key):
            self.leave(flight, name, q)

    # -- what happens to a key -----------------------------------------------------------------------------------------

    def claim(self, name: str, event: BlobClaimed | LayerClaimed, q: int) -> None:
        """An order for it is in the queue."""
        key = self.of(name)
        if event.revision > key.claimed:
            key.claimed, key.claimed_at = event.revision, q
            key.holder = event.holder
            self._drop_if_unwanted(name, key)

    def settle(self, name: str, q: int) -> list[Flight]:
        """It needs no more work. Returns the flights that waited for it."""
        key = self.of(name)
        key.settled, key.order = q, None
        waiters, key.waiters = key.waiters, {}
        self._intents.append(Settle(name, q))
        for flight in waiters.values():
            flight.missing.discard(name)
        return list(waiters.values())

    def fail(self, name: str, event: BlobFailed | LayerFailed, q: int) -> list[Flight]:
        """An attempt was given up. Returns the flights whose failure this is; see `want_again` for the others."""
        key = self.keys.get(name)
        if key is None or event.revision < key.claimed:
            return []  # an attempt that was given up long ago: its successor is at work
        key.done = max(key.done, event.revision)
        if key.settled:
            return []  # a verified success stands, whoever failed after it
        key.since = q
        self._intents.append(Settle(name, q))
        return [flight for flight in key.waiters.values() if concerned(event, flight, name)]

    def want_again(self, name: str, q: int) -> None:
        """Whoever still waits for a key that came to nothing at this position has it ordered anew."""
        key = self.keys.get(name)
        if key is not None and key.waiters and key.since == q:
            self._intents.append(self._want(name, key))

    def lose(self, name: str, q: int) -> None:
        """What was there is not any more."""
        key = self.of(name)
        key.settled, key.since = 0, q

    def void(self, flight: Flight, name: str, q: int, revision: int) -> None:
        """What came of an order of this flight alone does not count; the flight stops waiting for it."""
        key = self.of(name)
        key.done, key.since = max(key.done, revision), q
        key.waiters.clear()
        flight.missing.discard(name)
        self._intents.append(Settle(name, q))

    def _drop_if_unwanted(self, name: str, key: Key) -> None:
        if (withdraw := self._withdrawal(name, key)) is not None:
            self._intents.append(withdraw)

    def _withdrawal(self, name: str, key: Key) -> Withdraw | None:
        if key.waiters or key.settled or key.order is None or not key.ordered:
            return None
        return Withdraw(name, msgspec.structs.replace(key.order, revision=key.claimed))

    def _in_hand(self, key: Key) -> bool:
        return key.ordered and key.claimed_at > self.trusted

    def _want(self, name: str, key: Key) -> Want:
        first = next(iter(key.waiters.values()))
        hearsay = key.ordered and not self._in_hand(key)
        return Want(name, first.order_for(name), since=key.since, done=key.done, hearsay=hearsay)

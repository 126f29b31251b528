"""Keeps the leases of one coordinator: beats, takes its share of the partitions, gives back the surplus, notices the dead."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from pullonce.bus.ports import Claims
from pullonce.errors import WrongRevision
from schemas.subjects import LEASE_KEY
from services.coordinator.leases import EVERY, LeaseTable, decode, encode, left, partition_of, renewed

log = logging.getLogger(__name__)

_BEATS = 5
"""In a lease: so many may be missed, one less, before anybody is taken for dead."""

_OFTEN = 0.5
"""Seconds between two beats at most, however long a lease lasts: what another gives back is taken so soon."""


class Holding:
    """The partitions of one coordinator.

    Args:
        lease: seconds without a beat after which one is taken for dead.
        changed: told of the partitions that were gained.
        busy: the partitions for which something is being finished.
        gone: whether a coordinator is known not to run any more.
    """

    def __init__(
        self,
        claims: Claims,
        me: str,
        lease: float,
        *,
        changed: Callable[[frozenset[int]], None],
        busy: Callable[[], frozenset[int]],
        gone: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._gone = gone
        self._claims = claims
        self._me = me
        self._lease = lease
        self._changed = changed
        self._busy = busy
        self._owned: frozenset[int] = frozenset()
        self._written = 0.0
        self._seen: dict[str, tuple[int, float]] = {}
        """Coordinator → its last beat, and when that was first seen."""
        self._loop = asyncio.get_running_loop
        self._wake = asyncio.Event()

    @property
    def owned(self) -> frozenset[int]:
        """The partitions to act for now; none where the lease may have run out without our knowing."""
        fresh = self._loop().time() < self._written + self._lease
        return self._owned if fresh else frozenset()

    def owns(self, store: str) -> bool:
        return partition_of(store) in self.owned

    def look_anew(self) -> None:
        """After a time in which nothing was heard, nobody's silence means anything."""
        self._seen.clear()
        self._wake.set()

    async def run(self) -> None:
        """Hold leases until cancelled."""
        while True:
            await self.beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._lease / _BEATS, _OFTEN)):
                    await self._wake.wait()
            self._wake.clear()

    async def beat(self) -> None:
        """Read the table, and write it with our beat; once more if another was faster."""
        for _ in range(_BEATS):
            entry = await self._claims.get(LEASE_KEY)
            now = self._loop().time()
            table = decode(entry.value) if entry else LeaseTable()
            dead = self._dead(table, now)
            mine = renewed(table, self._me, dead=dead, keep=self._busy())
            try:
                await self._claims.put(LEASE_KEY, encode(mine), expected=entry.revision if entry else 0)
            except WrongRevision:
                continue
            if dead:
                log.warning("taking over from %s", ", ".join(sorted(dead)))
            if self._loop().time() >= self._written + self._lease:
                self._owned = frozenset()  # it has run out, perhaps while this was written, and nothing was done meanwhile
            self._written = now  # the lease runs from before the write: others count from when they see it
            self._take(mine.of(self._me))
            return

    async def leave(self) -> None:
        """Give everything back, for others to take at once."""
        self._owned = frozenset()
        for _ in range(_BEATS):
            entry = await self._claims.get(LEASE_KEY)
            if entry is None:
                return
            try:
                await self._claims.put(LEASE_KEY, encode(left(decode(entry.value), self._me)), expected=entry.revision)
                return
            except WrongRevision:
                continue

    def _dead(self, table: LeaseTable, now: float) -> set[str]:
        found = set()
        for name, beat in table.beats.items():
            known = self._seen.get(name)
            if known is None or known[0] != beat:
                self._seen[name] = (beat, now)
            elif name != self._me and now - known[1] >= self._lease:
                found.add(name)
        found.update(name for name in table.beats if name != self._me and self._gone(name))
        self._seen = {name: each for name, each in self._seen.items() if name in table.beats and name not in found}
        return found

    def _take(self, owned: frozenset[int]) -> None:
        gained = owned - self._owned
        if owned != self._owned:
            said = "all" if owned == EVERY else sorted(owned)
            log.info("acting for partitions: %s", said)
        self._owned = owned
        if gained:
            self._changed(gained)

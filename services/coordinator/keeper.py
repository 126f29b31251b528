"""Keeps the log short to read and within its limits: the low-water mark, what is cut off, and who is told of it.

The mark lies beside the claims, under `fold.events`: whoever starts folds from there. Any coordinator may write it; a newer one
wins, and all of them are right. A log that grows beyond its limit of bytes loses its oldest messages, but never one behind the
mark. What the server cuts off by age may lie behind it, if a flight lasts that long: such a flight is failed before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from pullonce.bus.ports import Bus, Extent, Recorded
from pullonce.errors import WrongRevision
from schemas.events import PullFailed
from schemas.subjects import MARK_KEY
from services.coordinator.board import Board
from services.coordinator.low_water import LowWater
from services.coordinator.mark import Mark, decode, encode, usable

log = logging.getLogger(__name__)

LOG_BYTES = 8 << 30
"""Default limit of the log: some eighteen million events."""

PERIOD = 5.0
"""Seconds between two looks."""

_WORTH = 1000
"""Positions by which a mark must be ahead of the one that is written down: less is folded in no time."""

_LARGEST = 400_000
"""Bytes of a mark: above, so much is in flight that the next one is waited for. The bus takes 512 KiB."""

_LOOK_AT_LOG = 60.0
_SPARE = 0.1
"""Part of the limit that a cut leaves free, so that the next one is far away."""

_DAY = 86_400.0


class LogKeeper:
    """Of one coordinator.

    Args:
        limit: bytes that the log may take; 0: as many as it likes.
        say: stores an ending.
    """

    def __init__(self, bus: Bus, board: Board, *, limit: int, say: Callable[[PullFailed], Awaitable[None]]) -> None:
        self._bus = bus
        self._board = board
        self._limit = limit
        self._say = say
        self._low_water = LowWater(board)
        self._made = ""
        self._mark = Mark()
        self.live = False
        """The board has caught up. Before that, what it takes for in flight may have ended long ago."""
        self._days: deque[tuple[float, int]] = deque()
        """When each day of the log began, and its first position; a bound is the age up to which the log is kept."""

    async def begin(self) -> int:
        """Have the board begin at the mark; returns the position from which the log is to be read."""
        extent = await self._bus.log.extent()
        self._made = extent.made
        entry = await self._bus.claims.get(MARK_KEY)
        mark = decode(entry.value) if entry else None
        if mark is not None and not usable(mark, log=extent.made, last=extent.last):
            log.warning("the mark is of another log, or the log lost its end: reading it from the beginning")
            mark = None
        self._mark = mark or Mark()
        self._board.begin(self._mark, extent.first)
        log.info("reading the log", extra={"start": self._board.position + 1, "end": extent.last})
        return self._board.position + 1

    def note(self, recorded: Recorded) -> None:
        """Take in an event that the board has folded."""
        assert recorded.event is not None, "what is no event is not folded"
        self._low_water.note(recorded.event)
        if not self._days or recorded.time >= self._days[-1][0] + _DAY:
            self._days.append((recorded.time, recorded.sequence))

    async def run(self) -> None:
        """Look after the log until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _LOOK_AT_LOG
        while True:
            await asyncio.sleep(PERIOD)
            await self.write_mark()
            if self.live and loop.time() >= due:
                await self.tend()
                due = loop.time() + _LOOK_AT_LOG

    async def write_mark(self) -> None:
        """Write the mark down, if it is worth it by now."""
        found = self._low_water.look()
        if found is None or found.position < self._mark.position + _WORTH:
            return
        mark = msgspec.structs.replace(found, log=self._made)
        value = encode(mark)
        if len(value) > _LARGEST:
            return
        entry = await self._bus.claims.get(MARK_KEY)
        present = decode(entry.value) if entry else None
        if present is None or present.log != self._made or present.position + _WORTH <= mark.position:
            try:
                await self._bus.claims.put(MARK_KEY, value, expected=entry.revision if entry else 0)
            except WrongRevision:
                return  # another coordinator was first; it is right too
            present = mark
        self._mark = present

    async def tend(self) -> None:
        """Keep the log within its limit, and end what has lost its request or is about to."""
        extent = await self._bus.log.extent()
        if extent.made != self._made:
            return  # the follower notices, or this coordinator begins anew
        for ending in self._board.in_flight.cut_off(max(extent.first, self._too_old(extent)), self._board.position):
            await self._say(ending)
        if (end := beyond(extent, self._limit, self._mark.position)) > extent.first:
            log.info("cutting the log", extra={"bytes": extent.bytes, "limit": self._limit, "first": end})
            await self._bus.log.cut(end)

    def _too_old(self, extent: Extent) -> int:
        """The position below which requests will be cut off by age within a day; 0: none."""
        if not extent.kept or not self._days:
            return 0
        now, found = self._days[-1][0], 0
        oldest = now - max(extent.kept - _DAY, extent.kept / 2)
        while len(self._days) > 1 and self._days[0][0] < oldest:
            found = self._days.popleft()[1]
        return found


def beyond(extent: Extent, limit: int, mark: int) -> int:
    """The first position that a log within its limit still has: never one behind the mark. Pure."""
    if not limit or extent.bytes <= limit or extent.last < extent.first:
        return extent.first
    each = extent.bytes / (extent.last - extent.first + 1)
    excess = extent.bytes - limit * (1 - _SPARE)
    return min(extent.first + int(excess / each), mark + 1)

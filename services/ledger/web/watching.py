"""Shows the air to whoever watches: everything at once to who comes, then what has changed, at a bounded pace.

Nobody watching costs nothing. However many watch, the air is looked at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import duckdb
import msgspec
from msgspec import Struct

from schemas.ledger import Pull
from services.ledger.answers import active
from services.ledger.answers.live import Live
from services.ledger.answers.questions import Ask
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.keeper import Keeper

log = logging.getLogger(__name__)

PAUSE = 0.4
"""Seconds between two looks at the least."""
_SHARE = 8
"""A look is paid for by a pause that many times as long: a thousand flights may not take the ledger's time."""
_BEHIND = 8
"""Changes that may wait for a slow watcher; then it is shown everything anew."""
WATCHERS = 200
"""That may watch at a time."""

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Shown(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything (`whole`), or what has changed since the one before."""

    whole: bool = False
    now: float
    position: int
    behind: int = 0
    flights: tuple[active.ActiveFlight, ...] = ()
    works: tuple[active.ActiveWork, ...] = ()
    gone: tuple[str, ...] = ()
    """Flights that ended, and works that nobody in the air needs any more, by key."""
    ended: tuple[Pull, ...] | None = None
    """The last endings, the newest first; None where none is new."""


class Watcher:
    """One who watches."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost = False
        """It has missed something."""

    def show(self, message: bytes) -> None:
        """Hand on one message, unless too many wait already."""
        if self._waiting.qsize() >= _BEHIND:
            self.lost = True
        else:
            self._waiting.put_nowait(message)

    async def next(self, timeout: float) -> bytes | None:
        """The next message as JSON; None after `timeout` seconds without one."""
        try:
            async with asyncio.timeout(timeout):
                return await self._waiting.get()
        except TimeoutError:
            return None


class Viewers:
    """Who watches, and what they were shown last.

    Args:
        live: what was heard of work under way.
        ask: asks the workers of a store how far they are, for `live` to hear.
    """

    def __init__(self, file: LedgerFile, keeper: Keeper, live: Live, ask: Ask) -> None:
        self._file = file
        self._ask = ask
        self._keeper = keeper
        self._live = live
        self._watchers: set[Watcher] = set()
        self._somebody = asyncio.Event()
        self._tables = active.Tables(position=0)
        self._air = active.Activity({}, {})
        self._words = -1
        self._looking = asyncio.Lock()
        """Held from a look until everybody was told: who comes meanwhile would miss a part of it."""

    @property
    def full(self) -> bool:
        """There is no room for another watcher."""
        return len(self._watchers) >= WATCHERS

    @asynccontextmanager
    async def watcher(self) -> AsyncIterator[Watcher]:
        """Watch for the length of the block; everything is shown first."""
        watcher = Watcher()
        async with self._looking:
            if not self._watchers:
                await self._look()  # nobody has looked for some time
                await self._ask_how_far()
            watcher.show(self._whole())
            self._watchers.add(watcher)
        self._somebody.set()
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._somebody.clear()

    async def present(self) -> bytes:
        """Everything, once."""
        async with self._looking:
            if not self._watchers:
                await self._look()
            return self._whole()

    async def run(self) -> None:
        """Show what changes. For ever."""
        while True:
            await self._somebody.wait()
            began = time.monotonic()
            try:
                async with self._looking:
                    await self._show()
            except duckdb.Error as exc:
                # Somebody's query has all the memory, or the file is being exchanged: the next look will tell.
                log.warning("the air cannot be looked at now: %s", exc)
            took = time.monotonic() - began
            await asyncio.sleep(max(PAUSE, took * _SHARE))

    async def _show(self) -> None:
        before, ended = self._air, self._tables.ended
        if await self._look():
            self._tell(self._changed(before, ended))
        for watcher in self._watchers:
            if watcher.lost:
                watcher.lost = False
                watcher.show(self._whole())

    async def _ask_how_far(self) -> None:
        """Hear again what was said of work under way while this ledger was not there."""
        for store in {row["store"] for row in self._tables.flights}:
            await self._ask(store)
        self._air = await asyncio.to_thread(active.activity_of, self._tables, self._live)

    async def _look(self) -> bool:
        """Look at the air; say whether there may be anything new."""
        words, position = self._live.words, self._keeper.position
        if position == self._tables.position and words == self._words:
            return False
        if position != self._tables.position:
            self._tables = await self._file.read(active.read)
        self._words = words
        self._air = await asyncio.to_thread(active.activity_of, self._tables, self._live)
        return True

    def _tell(self, message: bytes | None) -> None:
        if message is not None:
            for watcher in self._watchers:
                watcher.show(message)

    def _whole(self) -> bytes:
        return _encode(
            Shown(
                whole=True,
                now=time.time(),
                position=self._tables.position,
                behind=self._keeper.behind,
                flights=tuple(self._air.flights.values()),
                works=tuple(self._air.works.values()),
                ended=self._tables.ended,
            )
        )

    def _changed(self, before: active.Activity, ended: tuple[Pull, ...]) -> bytes | None:
        flights = tuple(each for key, each in self._air.flights.items() if before.flights.get(key) != each)
        works = tuple(each for key, each in self._air.works.items() if before.works.get(key) != each)
        gone = (*(before.flights.keys() - self._air.flights.keys()), *(before.works.keys() - self._air.works.keys()))
        new = self._tables.ended if self._tables.ended != ended else None
        if not flights and not works and not gone and new is None:
            return None
        return _encode(
            Shown(
                now=time.time(),
                position=self._tables.position,
                behind=self._keeper.behind,
                flights=flights,
                works=works,
                gone=gone,
                ended=new,
            )
        )

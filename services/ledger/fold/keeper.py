"""Keeps the ledger at the end of the log: what arrives is staged and folded in batches, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from pullonce.bus.ports import Log, Recorded
from pullonce.errors import LogShortened, Permanent
from pullonce.store.disk import free_bytes
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.projection import Ledger
from services.ledger.fold.staging import Staged, stage
from services.ledger.fold.trouble import trouble

log = logging.getLogger(__name__)

FULL = 50_000
"""Staged rows that may wait: some 50 MB. Then reading stops until they are folded."""

PAUSE = 0.5
"""Seconds from the first news to the fold of all that has come by then: a batch has a cost of its own, some 30 ms of a
processor, and the ledger may be that far behind."""

LATE = 5.0
"""Seconds that an event may have waited for its fold, before what the ledger answers counts as out of date."""

_AGAIN = 1.0
_LOOKS = 8
"""Looks at what is free before a fold is tried in any case: what it needs is a guess, and a quota shows nowhere."""


class _Full(Exception):
    """Enough is waiting to be folded."""


class Keeper:
    """Follows the log into the ledger of a file.

    Args:
        log: the port to the stream.
    """

    def __init__(self, log: Log, file: LedgerFile) -> None:
        self.position = file.ledger.position
        """Sequence of the last folded event."""
        self.heard = self.position
        """Sequence of the last event that arrived."""
        self.folds = 0
        """Batches since the start."""
        self.trouble: Permanent | None = None
        """What keeps events from being folded now. They wait, and are folded when it is over."""
        self._log = log
        self._file = file
        self._rows: list[Staged] = []
        self._taken = self.position
        """Sequence of the last row that was handed to a fold."""
        self._goal: int | None = None
        """Where the log ended when reading first came to its end; None: it did not yet."""
        self._since = 0.0
        """When the first of the rows arrived that are not handed to a fold yet."""
        self._folding: float | None = None
        """When the first of those arrived that are being folded."""
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._reading: asyncio.Task[None] | None = None

    @property
    def behind(self) -> int:
        """Positions of the log that were heard of and are not folded yet."""
        return max(0, self.heard - self.position)

    @property
    def state(self) -> str:
        """`ready`: answers are true of a moment at most `LATE` seconds ago. Otherwise what keeps them from it."""
        if self.trouble is not None:
            return self.trouble.code
        if self._goal is None or self.position < self._goal:
            return "catching up"
        oldest = self._folding if self._folding is not None else self._since if self._rows else None
        return "behind" if oldest is not None and time.monotonic() - oldest > LATE else "ready"

    def details(self) -> dict[str, str | int | float]:
        """What belongs into the answer to a ping."""
        told = {"trouble": f"{self.trouble.code}: {self.trouble}"} if self.trouble else {}
        return {"position": self.position, "behind": self.behind, "state": self.state, **told}

    async def folded(self) -> None:
        """Wait for the next fold."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        await done

    async def run(self) -> None:
        """Keep the ledger until cancelled. What was staged and not folded then is read again at the next start."""
        folding = asyncio.ensure_future(self._fold_for_ever())
        try:
            while True:
                self._reading = asyncio.ensure_future(self._read())
                await asyncio.wait((self._reading, folding), return_when=asyncio.FIRST_COMPLETED)
                if folding.done():
                    folding.result()
                await self._read_on(self._reading)
        finally:
            tasks = [task for task in (folding, self._reading) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def exchange(self, change: Callable[[Path], None]) -> None:
        """Exchange the ledger's file (see `LedgerFile.exchange`) and go on from where the new one stands."""
        await self._file.exchange(change)
        self._restart()

    def _restart(self) -> None:
        """Read again from where the ledger stands."""
        self._rows, self._goal = [], None
        self.position = self.heard = self._taken = self._file.ledger.position
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        await self._log.follow(self._take, start=self.heard + 1, idle=self._at_the_end)

    async def _read_on(self, reading: asyncio.Task[None]) -> None:
        """See why reading ended, and return when it may begin again."""
        try:
            await reading
        except _Full:
            self._goal = None
            self._drained.clear()
            if self._rows:
                await self._drained.wait()
        except LogShortened as exc:
            log.error("another log is served; the ledger of the old one is put aside: %s", exc)
            await self._file.exchange(lambda _: self._put_aside())
            self._restart()
        except asyncio.CancelledError:
            if not reading.cancelled() or (task := asyncio.current_task()) is None or task.cancelling():
                raise

    def _put_aside(self) -> None:
        self._file.put_aside()

    def _at_the_end(self) -> None:
        if self._goal is None:
            self._goal = self.heard

    def _take(self, recorded: Recorded) -> None:
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(stage(recorded.sequence, recorded.time, recorded.event, recorded.subject, recorded.malformed))
        self.heard = recorded.sequence
        if not recorded.pending:
            self._at_the_end()
        self._news.set()
        if len(self._rows) >= FULL:
            raise _Full

    async def _fold_for_ever(self) -> None:
        while True:
            await self._news.wait()
            # Pacing, not waiting for anything: what arrives meanwhile makes the batch.
            await asyncio.sleep(PAUSE if len(self._rows) < FULL else 0.0)
            self._news.clear()
            rows, self._rows = self._rows, []
            if rows:
                after, self._taken, self._folding = self._taken, rows[-1][0], self._since
                await self._fold(rows, after)
                self._folding = None
            self._drained.set()

    async def _fold(self, rows: list[Staged], after: int) -> None:
        while True:
            try:
                position = await self._file.write(lambda ledger: _fold(ledger, rows, after))
                break
            except duckdb.Error as exc:
                needed = self._file.ledger.to_work_in + sum(len(body) for _, _, _, body in rows)
                if (refused := trouble(exc, needed)) is None:
                    raise
                self._say(refused, len(rows))
                await self._room(needed)
        if self.trouble is not None:
            log.info("the ledger folds again", extra={"rows": len(rows)})
            self.trouble = None
        if position is None:
            return
        self.position = max(self.position, position)
        self.folds += 1
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            if not done.done():
                done.set_result(None)

    def _say(self, refused: Permanent, rows: int) -> None:
        """Say once what is the matter. A disk may well be full again before one batch fits, so the bytes are no news."""
        if self.trouble is None or self.trouble.code != refused.code:
            told = "the ledger cannot fold, goes on answering, and tries again by itself: %s"
            log.error(told, refused, extra={"code": refused.code, "rows": rows})
        self.trouble = refused

    async def _room(self, needed: int) -> None:
        """Wait until it may be worth another try. Nothing of the batch is lost: either no row of it is there, or all are."""
        for _ in range(_LOOKS):
            await asyncio.sleep(_AGAIN)
            if free_bytes(self._file.path) >= needed:
                return


def _fold(ledger: Ledger, rows: list[Staged], after: int) -> int | None:
    """Fold rows that follow position `after`; None where the ledger does not reach so far: it was exchanged meanwhile."""
    if ledger.position < after:
        return None
    ledger.fold(rows)
    return ledger.position

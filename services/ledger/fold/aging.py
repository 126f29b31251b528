"""Rolls up by itself what is old, or what is too much, so that a ledger of years stays of a size."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from functools import partial

import duckdb

from services.ledger.fold.archive import day, roll_up_before
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.projection import Ledger
from services.ledger.fold.trouble import trouble

log = logging.getLogger(__name__)

EVERY = 600.0
"""Seconds between two looks."""

_PART = 0.125
"""Of the flights that are there in detail, what is rolled up at a time where there are too many bytes."""


class Aging:
    """Rolls up days.

    Args:
        days: older detail is rolled up; 0: however old.
        size: bytes of the file in use beyond which the oldest days are; 0: however many. Yesterday and today stay.
    """

    def __init__(self, file: LedgerFile, *, days: int, size: int) -> None:
        self._file = file
        self._days = days
        self._size = size

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            try:
                await self.look(datetime.now(UTC))
            except duckdb.Error as exc:
                if (refused := trouble(exc)) is None:
                    raise
                log.warning("old detail cannot be rolled up now: %s", refused)
            await asyncio.sleep(EVERY)

    async def look(self, now: datetime) -> None:
        """Roll up whatever is due.

        Raises:
            duckdb.Error: it cannot be done; nothing of the last step is.
        """
        if self._days:
            until = day(now - timedelta(days=self._days))
            await self._roll_up(until, f"older than {self._days} days")
        while self._size and (found := await self._file.write(_used)) > self._size:
            part: datetime | None = await self._file.write(partial(_oldest_part, last=day(now) - timedelta(days=1)))
            if part is None or not await self._roll_up(part, f"the file has {found} bytes in use, more than {self._size}"):
                return

    async def _roll_up(self, until: datetime, why: str) -> bool:
        def act(ledger: Ledger) -> int:
            if not ledger.has_before(until):
                return 0
            flights = roll_up_before(ledger, until)
            ledger.checkpoint()  # only now what it took is free
            return flights

        flights = await self._file.write(act)
        if flights:
            log.info("rolled up", extra={"before": until.isoformat(), "flights": flights, "reason": why})
        return flights > 0


def _used(ledger: Ledger) -> int:
    """Bytes of the file that hold something."""
    reader = ledger.reader()
    try:
        found = reader.execute("SELECT used_blocks * block_size FROM pragma_database_size()").fetchall()
        return int(found[0][0]) + ledger.to_work_in
    finally:
        reader.close()


def _oldest_part(ledger: Ledger, last: datetime) -> datetime | None:
    """The day before which the oldest flights ended; None where nothing is old enough."""
    reader = ledger.reader()
    try:
        found = reader.execute(
            "SELECT quantile_disc(ended_at, ?), min(ended_at) FROM ended_flights WHERE ended_at < ?", [_PART, last]
        ).fetchall()
    finally:
        reader.close()
    part, oldest = found[0]
    return None if oldest is None else min(last, max(day(part), day(oldest) + timedelta(days=1)))

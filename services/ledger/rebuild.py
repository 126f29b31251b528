"""Makes a ledger anew: the log → files of NDJSON → one fold each, into a fresh file beside the old one.

Millions of events come this way in seconds: while one file is written, DuckDB reads the one before it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TextIO

from pullonce.bus import Log, Recorded
from services.ledger.projection import Ledger
from services.ledger.staging import line, stage
from services.ledger.tables import ANSWERED, DAYS, ENDED, EVENTS, POSITION, TABLES, WAITING

log = logging.getLogger(__name__)

CHUNK = 250_000
"""Events that are folded at once: larger is faster and takes more memory."""


_BUFFER = 1 << 20


class _Full(Exception):
    """A chunk is complete."""


class _Done(Exception):
    """The end is reached."""


class Rebuild:
    """One rebuild.

    Args:
        path: the new file; what is there is removed.
        memory: DuckDB's limit.
    """

    def __init__(self, log: Log, path: Path, *, memory: str, chunk: int = CHUNK) -> None:
        self._log = log
        self._path = path
        self._memory = memory
        self._chunk = chunk
        self._lines = 0
        self._at = 0
        self._end = 0

    async def run(self) -> int:
        """Fold everything that is in the log now; returns the position that was reached."""
        began = time.monotonic()
        remove(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._end = await self._log.last_sequence()
        ledger = Ledger(self._path, memory=self._memory, sealed=False)
        try:
            await self._fold_all(ledger)
            seconds = time.monotonic() - began
            log.info("rebuilt", extra={"position": ledger.position, "seconds": round(seconds, 3)})
            return ledger.position
        finally:
            ledger.close()
            for each in self._files():
                each.unlink(missing_ok=True)

    def _files(self) -> tuple[Path, Path]:
        return self._path.with_suffix(".0.ndjson"), self._path.with_suffix(".1.ndjson")

    async def _fold_all(self, ledger: Ledger) -> None:
        loading: asyncio.Future[None] | None = None
        number = 0
        try:
            while self._at < self._end:
                file = self._files()[number % 2]
                await self._read_chunk(file)
                if loading is not None:
                    await loading
                loading = asyncio.ensure_future(asyncio.to_thread(ledger.load, file))
                number += 1
            if loading is not None:
                await loading
        except BaseException:
            if loading is not None:  # a thread cannot be stopped, and it has the file
                await asyncio.wait((loading,))
            raise

    async def _read_chunk(self, file: Path) -> None:
        self._lines = 0
        with file.open("w", buffering=_BUFFER) as out:
            try:
                await self._log.follow(lambda recorded: self._take(recorded, out), start=self._at + 1)
            except (_Full, _Done):
                pass

    def _take(self, recorded: Recorded, out: TextIO) -> None:
        self._at = recorded.sequence
        if recorded.sequence <= self._end:
            out.write(line(stage(recorded.sequence, recorded.time, recorded.event, recorded.subject, recorded.malformed)))
            self._lines += 1
        if recorded.sequence >= self._end:
            raise _Done
        if self._lines >= self._chunk:
            raise _Full


def remove(path: Path) -> None:
    """Remove a closed ledger and what belongs to it."""
    for each in (path, path.with_name(path.name + ".wal")):
        each.unlink(missing_ok=True)


def replace(path: Path, rebuilt: Path) -> None:
    """Put a rebuilt ledger in the place of another, both closed. What the log does not hold any more is carried over."""
    if path.exists():
        new = Ledger(rebuilt, sealed=False)
        try:
            carry_over(new, path)
        finally:
            new.close()
    rebuilt.replace(path)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)


_POSITIONS = {ENDED.name: "ended", ANSWERED.name: "ended"}


def carry_over(new: Ledger, old: Path) -> None:
    """Copy what lies before the first event of the new ledger, and the days that were rolled up before its first day."""
    quoted = str(old).replace("'", "''")
    new.execute(f"ATTACH '{quoted}' AS old (READ_ONLY)")
    try:
        with new.transaction() as writer:
            first = f"(SELECT coalesce(min(sequence), 0) FROM {EVENTS.name})"
            for table in TABLES:
                if table not in (WAITING, DAYS, POSITION, EVENTS):
                    column = _POSITIONS.get(table.name, "sequence")
                    writer.execute(f"INSERT INTO {table.name} SELECT * FROM old.{table.name} WHERE {column} < {first}")
            writer.execute(f"INSERT INTO days SELECT * FROM old.days WHERE day < (SELECT min(time)::DATE FROM {EVENTS.name})")
            writer.execute(f"INSERT INTO events SELECT * FROM old.events WHERE sequence < {first}")
            writer.execute("UPDATE position SET first = (SELECT min(sequence) FROM events)")
    finally:
        new.execute("DETACH old")

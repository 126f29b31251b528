"""Makes a ledger anew: the log → files of NDJSON → one fold each, into a fresh file beside the old one.

Millions of events come this way in seconds: while one file is written, DuckDB reads the one before it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from pathlib import Path

import duckdb

from pullonce.bus.ports import Log, Recorded
from pullonce.failpoints import reach
from pullonce.store.disk import disk_errors
from services.ledger.fold.projection import Ledger
from services.ledger.fold.staging import line
from services.ledger.fold.tables import ANSWERED, DAYS, ENDED, GAPS, POSITION, TABLES, WAITING
from services.ledger.fold.trouble import trouble

log = logging.getLogger(__name__)

CHUNK = 400_000
"""Events that are folded at once: larger is faster and takes more memory."""


NAME = "rebuilt"
"""What the names of files begin with that a rebuild makes."""

_BUFFER = 1 << 20


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

    async def run(self) -> int:
        """Fold everything that is in the log now; returns the position that was reached.

        Raises:
            Permanent: the disk refuses. What was written so far stays, for whoever asked to remove.
        """
        try:
            with disk_errors(self._path):
                return await self._run()
        except duckdb.Error as exc:
            if refused := trouble(exc):
                raise refused from exc
            raise

    async def _run(self) -> int:
        began = time.monotonic()
        remove(self._path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(self._path, memory=self._memory, sealed=False)
        loader = _Loader(ledger, self._chunk)
        try:
            await self._log.replay(loader.take, start=1, end=await self._log.last_sequence())
            await asyncio.to_thread(loader.finish)
            reach("rebuild.folded")
            log.info("rebuilt", extra={"position": ledger.position, "seconds": round(time.monotonic() - began, 3)})
            return ledger.position
        finally:
            loader.close()
            ledger.close()


class _Loader:
    """Writes events to a file and, while DuckDB reads that, to another one."""

    def __init__(self, ledger: Ledger, chunk: int) -> None:
        self._ledger = ledger
        self._chunk = chunk
        self._files = [ledger.path.with_suffix(f".{number}.ndjson") for number in range(2)]
        self._out = self._files[0].open("wb", buffering=_BUFFER)
        self._lines = 0
        self._loading: Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, "ledger-load")

    def take(self, messages: Sequence[Recorded]) -> None:
        """Take the next events of the log; blocks while DuckDB is a whole file behind."""
        self._out.writelines(line(each.sequence, each.time, each.event, each.subject, each.malformed) for each in messages)
        self._lines += len(messages)
        if self._lines >= self._chunk:
            self._turn_over()

    def finish(self) -> None:
        """Return when everything is folded."""
        self._turn_over()
        assert self._loading is not None
        self._loading.result()

    def _turn_over(self) -> None:
        self._out.close()
        if self._loading is not None:
            self._loading.result()
        self._loading = self._thread.submit(self._ledger.load, self._files[0])
        self._files.reverse()
        self._out = self._files[0].open("wb", buffering=_BUFFER)
        self._lines = 0

    def close(self) -> None:
        """Wait for DuckDB and remove the files."""
        self._thread.shutdown()
        try:
            self._out.close()  # writes what is left
        finally:
            for each in self._files:
                each.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a closed ledger and what belongs to it."""
    for each in (path, path.with_name(path.name + ".wal")):
        each.unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Remove what is left of rebuilds that came to nothing."""
    for each in directory.glob(f"{NAME}*"):
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


def replace(path: Path, rebuilt: Path) -> None:
    """Put a rebuilt ledger in the place of another, both closed. What the log does not hold any more is carried over.

    Whatever happens meanwhile, the old file is there, whole, or the new one is.

    Raises:
        duckdb.Error: the disk does not take it; then the old one is.
    """
    new = Ledger(rebuilt, sealed=False)
    try:
        if path.exists():
            _make_one_file(path)
            carry_over(new, path)
        new.checkpoint()
    finally:
        new.close()
    reach("rebuild.carried")
    rebuilt.replace(path)
    reach("rebuild.replaced")


def _make_one_file(path: Path) -> None:
    """Work in what lies beside a closed ledger, as it does where the disk was full. DuckDB would refuse to open another file
    that comes into this place."""
    if path.with_name(path.name + ".wal").exists():
        old = Ledger(path, sealed=False)
        try:
            old.checkpoint()
        finally:
            old.close()


def carry_over(new: Ledger, old: Path) -> None:
    """Copy what lies before the first event of the new ledger, and roll up again what was rolled up and cannot be made anew.

    A flight that was opened before that and ended behind it is known to the old ledger as a whole, so its row is taken.
    """
    quoted = str(old).replace("'", "''")
    new.execute(f"ATTACH '{quoted}' AS old (READ_ONLY)")
    try:
        with new.transaction() as writer:
            found = writer.execute("SELECT min(sequence), min(time)::DATE FROM events").fetchall()
            first, day = found[0]
            if first is None:
                return
            writer.execute(
                "DELETE FROM ended_flights AS f WHERE opened < ? AND "
                "EXISTS (FROM old.ended_flights AS o WHERE o.opened = f.opened AND o.flight = f.flight)",
                [first],
            )
            _roll_up_again(writer, first, day)
            for table in TABLES:
                if table not in (WAITING, DAYS, POSITION):
                    column = {ENDED: "opened", GAPS: "after"}.get(table, "sequence")
                    writer.execute(f"INSERT INTO {table.name} SELECT * FROM old.{table.name} WHERE {column} < ?", [first])
            writer.execute(_GAP_BETWEEN, {"first": first})
            writer.execute("UPDATE position SET first = least(first, (SELECT first FROM old.position))")
    finally:
        new.execute("DETACH old")


_GAP_BETWEEN = """
INSERT INTO gaps SELECT $first, (SELECT min(time) FROM events WHERE sequence = $first), sequence, time, $first - sequence - 1
FROM old.position WHERE sequence > 0 AND sequence < $first - 1
"""
"""The old ledger had not read as far as to where the log begins now."""


_ROLLED_UP = """
CREATE OR REPLACE TEMP TABLE rolled_up AS
SELECT DISTINCT day FROM old.days, old.position
WHERE day < $day OR (day = $day AND position.first < $first)
    OR day IN (SELECT ended_at::DATE FROM ended_flights WHERE opened < $first AND ended <= position.sequence)
"""
"""Days of which the log does not hold everything any more: they keep their figures. All others come back as detail."""


def _roll_up_again(writer: duckdb.DuckDBPyConnection, first: int, day: date) -> None:
    """Take over the figures of days that cannot be made anew, and drop what the log still has of them: it is in the figures,
    unless the old ledger had it as detail, or had not read it yet."""
    writer.execute(_ROLLED_UP, {"first": first, "day": day})
    for table in TABLES:
        if table in (WAITING, DAYS, GAPS, POSITION):
            continue
        by_end = table in (ENDED, ANSWERED)
        when, position = ("ended_at", "ended") if by_end else ("time", "sequence")
        key = "ended" if table is ENDED else "sequence"
        writer.execute(
            f"DELETE FROM {table.name} WHERE {when}::DATE IN (FROM rolled_up) AND {key} NOT IN (SELECT {key} FROM "
            f"old.{table.name}) AND {position} <= (SELECT sequence FROM old.position)"
        )
    writer.execute("INSERT INTO days SELECT * FROM old.days WHERE day IN (FROM rolled_up); DROP TABLE rolled_up")

"""Old detail: written out as Parquet files, and rolled up to one row a day, store and image.

The ledger that answers questions is sealed: no statement of anybody's reaches a file through it. So an export is written out
of a copy, by a database of its own that nobody else has a connection to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from pullonce.failpoints import reach
from pullonce.store.disk import disk_errors
from services.ledger.fold.projection import Ledger
from services.ledger.fold.tables import ANSWERED, DAYS, ENDED, GAPS, POSITION, TABLES, WAITING

_KEPT = (WAITING, DAYS, GAPS, POSITION)
"""Never exported by age nor rolled up."""

_UNFINISHED = ".unfinished"
"""How the directory of an export is called while it is written."""

_NAMES = {ANSWERED.name: "requests", ENDED.name: "flights"}

_ROLL_UP = """
INSERT INTO days
SELECT ended_at::DATE AS day, store, reference, registry, count(*), count_if(outcome = 'failed'), sum(requests), sum(cancelled),
    sum(requests * size), sum(fetched_bytes), sum(reused_bytes), sum(waited_bytes),
    quantile_disc(seconds, 0.5), quantile_disc(seconds, 0.95), quantile_disc(seconds, 0.99)
FROM ended_flights WHERE ended_at < ? GROUP BY ALL ORDER BY ALL
"""


def export(ledger: Ledger, before: datetime | None, *, roll_up: bool, now: datetime) -> tuple[Path, int]:
    """Write what happened before a day as Parquet, one file a table; returns the directory and the number of rows.

    Args:
        before: the start of this day counts; None: everything.
        roll_up: then keep of it only what `days` says. Nothing falls in between: one thread writes, and it is ours meanwhile.

    Raises:
        Permanent, duckdb.Error: it cannot be written; then nothing is rolled up.
    """
    until = day(before) if before is not None else datetime.max
    directory = ledger.exports / now.strftime("%Y%m%dT%H%M%S.%fZ")
    for left in ledger.exports.glob(f"*{_UNFINISHED}"):
        shutil.rmtree(left)
    with disk_errors(directory):
        unfinished = ledger.exports / f"{directory.name}{_UNFINISHED}"
        unfinished.mkdir(parents=True)
    try:
        count = _export(ledger, unfinished, until, roll_up=roll_up)
    except BaseException:
        # Once it is whole it stays, whatever becomes of the roll-up: it may be all that is left of the detail.
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if roll_up:
        reach("roll-up.committed")
    return directory, count


def _export(ledger: Ledger, unfinished: Path, until: datetime, *, roll_up: bool) -> int:
    count = 0
    with _copied(ledger, unfinished) as copied:
        for table in _aging():
            where = f"WHERE {_when(table)} < TIMESTAMP '{until.isoformat(sep=' ')}'"
            target = unfinished / f"{_NAMES.get(table, table)}.parquet"
            written = copied.execute(
                f"COPY (SELECT * FROM {table} {where}) TO '{_quoted(target)}' (FORMAT parquet, COMPRESSION zstd)"
            ).fetchall()
            count += int(written[0][0])
    reach("export.written")
    unfinished.rename(unfinished.with_name(unfinished.name.removesuffix(_UNFINISHED)))
    if roll_up:
        roll_up_before(ledger, until)
    return count


def roll_up_before(ledger: Ledger, until: datetime) -> int:
    """Keep of what happened before a day only what `days` says; returns the flights that this was.

    Args:
        until: the start of the day, as times lie in the tables.

    Raises:
        duckdb.Error: nothing is rolled up.
    """
    with ledger.transaction() as writer:
        flights = writer.execute("SELECT count(*) FROM ended_flights WHERE ended_at < ?", [until]).fetchall()[0][0]
        writer.execute(_ROLL_UP, [until])
        for table in _aging():
            writer.execute(f"DELETE FROM {table} WHERE {_when(table)} < ?", [until])
        reach("roll-up.made")
    return int(flights)


def _aging() -> list[str]:
    return [table.name for table in TABLES if table not in _KEPT]


@contextmanager
def _copied(ledger: Ledger, directory: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of all that was committed, in a directory, open for us alone; it goes with the block."""
    copy = directory / "copied.duckdb"
    beside = copy.with_name(copy.name + ".wal")
    try:
        _copy(ledger.path, copy)
        _copy(ledger.path.with_name(ledger.path.name + ".wal"), beside)
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": ledger.memory,
            "temp_directory": str(copy.with_suffix(".tmp")),
        }
        connection = duckdb.connect(str(copy), config=settings)
        try:
            yield connection
        finally:
            connection.close()
    finally:
        copy.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
        shutil.rmtree(copy.with_suffix(".tmp"), ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    command = [sys.executable, "-m", "services.ledger.fold.copying", str(source), str(target)]
    with disk_errors(target, source.stat().st_size):
        if number := subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
            raise OSError(number, f"the ledger cannot be copied to {target}: {os.strerror(number)}")


def day(moment: datetime) -> datetime:
    """The start of a day, in UTC and without saying so, as times lie in the tables."""
    utc = moment.astimezone(UTC) if moment.tzinfo else moment
    return utc.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


def _when(table: str) -> str:
    """The column by whose time a row counts as old: requests and flights by their end."""
    return "ended_at" if table in _NAMES else "time"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")

"""Old detail: written out as Parquet files, and rolled up to one row a day, store and image."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from pullonce.failpoints import reach
from pullonce.store.disk import disk_errors
from services.ledger.fold.projection import Ledger
from services.ledger.fold.tables import ANSWERED, DAYS, ENDED, POSITION, TABLES, WAITING

_KEPT = (WAITING, DAYS, POSITION)
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
        roll_up: then keep of it only what `days` says. In one transaction with the export: nothing falls in between.

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
    with ledger.transaction() as writer:
        count = 0
        for table in TABLES:
            if table in _KEPT:
                continue
            where = f"WHERE {_when(table.name)} < TIMESTAMP '{until.isoformat(sep=' ')}'"
            target = unfinished / f"{_NAMES.get(table.name, table.name)}.parquet"
            copied = writer.execute(
                f"COPY (SELECT * FROM {table.name} {where}) TO '{_quoted(target)}' (FORMAT parquet, COMPRESSION zstd)"
            ).fetchall()
            count += int(copied[0][0])
        reach("export.written")
        unfinished.rename(unfinished.with_name(unfinished.name.removesuffix(_UNFINISHED)))
        if roll_up:
            writer.execute(_ROLL_UP, [until])
            for table in TABLES:
                if table not in _KEPT:
                    writer.execute(f"DELETE FROM {table.name} WHERE {_when(table.name)} < ?", [until])
            reach("roll-up.made")
    return count


def day(moment: datetime) -> datetime:
    """The start of a day, in UTC and without saying so, as times lie in the tables."""
    utc = moment.astimezone(UTC) if moment.tzinfo else moment
    return utc.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)


def _when(table: str) -> str:
    """The column by whose time a row counts as old: requests and flights by their end."""
    return "ended_at" if table in _NAMES else "time"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")

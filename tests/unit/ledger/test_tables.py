"""The tables are documented: in the database itself and in docs/ledger.md, from one source."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from schemas.ledger import AskSql, AskStats
from services.ledger.answers import queries, sandbox
from services.ledger.describe import written_into
from services.ledger.fold import archive
from services.ledger.fold.projection import Ledger, LedgerOutdated, LedgerTaken
from services.ledger.fold.rebuild import carry_over
from services.ledger.fold.staging import stage
from services.ledger.fold.tables import TABLES
from services.ledger.fold.views import VIEWS
from tests.support.ledgers import folded, loaded, rows
from tests.support.long_log import long_log

DOCUMENT = Path(__file__).parents[3] / "docs" / "ledger.md"


def test_the_document_says_what_the_tables_are() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert text == written_into(text), "run python -m services.ledger.describe"


def test_the_queries_of_the_document_work(tmp_path: Path) -> None:
    (block,) = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    ledger = folded(tmp_path / "ledger.duckdb", [[stage(*each) for each in long_log(500)]])
    reader = ledger.reader()
    queries = [query for query in block.split(";") if query.strip()]
    assert len(queries) == 4
    for query in queries:
        assert sandbox.run(reader, AskSql(query=query)).rows, query
    reader.close()
    ledger.close()


def test_every_column_has_its_type_and_comment_in_the_database(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.duckdb")
    reader = ledger.reader()
    found = reader.execute(
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal"
    ).fetchall()
    wanted = [(table.name, column.name, column.type, column.meaning) for table in (*TABLES, *VIEWS) for column in table.columns]
    said = {(table, column): (kind.replace(", ", ","), comment) for table, column, kind, comment in found}
    for table, column, kind, meaning in wanted:
        assert said[table, column] == (kind, meaning), f"{table}.{column}"
    reader.close()
    ledger.close()


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    ledger = Ledger(path)
    ledger.execute("UPDATE position SET version = version + 1")
    ledger.close()
    with pytest.raises(LedgerOutdated):
        Ledger(path)


def test_a_file_is_open_in_one_process_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    ledger = Ledger(path)
    code = f"from pathlib import Path; from services.ledger.fold.projection import Ledger; Ledger(Path({str(path)!r}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert LedgerTaken.__name__ in ran.stderr
    ledger.close()


@pytest.mark.parametrize("lost", [1, 57, 300, 499])
def test_a_rebuild_carries_over_what_the_log_has_lost(lost: int, tmp_path: Path) -> None:
    staged = [stage(*each) for each in long_log(500)]
    old = folded(tmp_path / "old" / "ledger.duckdb", [staged])
    wanted = rows(old)
    old.close()
    new = loaded(tmp_path / "new" / "ledger.duckdb", staged[lost:])
    carry_over(new, old.path)
    found = rows(new)
    for name in wanted:
        assert found[name] == wanted[name], name
    new.close()


@pytest.mark.parametrize("lost", [0, 1, 8, 57, 205, 300, 499])
def test_a_rebuild_neither_loses_nor_doubles_what_was_rolled_up(lost: int, tmp_path: Path) -> None:
    """Three and a half days, of which two were rolled up. The log begins in the middle of a flight, behind 8 of one that ends
    on the next day; behind 205 between two of them."""
    staged = [stage(*each) for each in long_log(500, gap=600.0)]
    old = folded(tmp_path / "old" / "ledger.duckdb", [staged[:350]])
    archive.export(old, datetime(2023, 11, 17, tzinfo=UTC), roll_up=True, now=datetime.now(UTC))
    old.fold(staged[350:])
    wanted = figures(old)
    for number in range(2):  # and again: what was carried over once is carried over
        old.close()
        new = loaded(tmp_path / f"new-{number}" / "ledger.duckdb", staged[lost:])
        carry_over(new, old.path)
        assert figures(new) == wanted
        found = rows(new)
        assert bool(found["days"]) == bool(lost), "a day of which the log has everything comes back with its detail"
        for name in ("events", "answered", "flight_layers", "blobs"):
            assert len(found[name]) == len(set(map(repr, found[name]))), name
        old = new
    old.close()


def figures(ledger: Ledger) -> list[tuple[object, ...]]:
    """What each day came to, and each image; percentiles are not added up."""
    reader = ledger.reader()
    groups: list[Literal["day", "image"]] = ["day", "image"]
    found = [each for by in groups for each in queries.stats(reader, AskStats(by=by, limit=1000)).figures]
    reader.close()
    assert len(found) > 10
    return [
        (each.name, each.flights, each.failed, each.requests, each.asked_bytes, each.fetched_bytes, each.reused_bytes)
        for each in found
    ]

"""A ledger of years: of earlier versions, of many days, and of a log that has forgotten meanwhile."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from schemas.ledger import AskHistory, AskStats
from services.ledger.answers import queries
from services.ledger.fold import migrations
from services.ledger.fold.aging import Aging
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.projection import Ledger, LedgerOutdated
from services.ledger.fold.rebuild import replace
from services.ledger.fold.staging import Staged, stage
from services.ledger.fold.tables import VERSION
from tests.support.ledgers import cut, folded, loaded, rows
from tests.support.long_log import long_log

FIRST = (Path(__file__).parent / "version_1.sql").read_text()
"""The tables as version 1 made them."""


def of_version(version: int, path: Path, staged: list[Staged]) -> None:
    """A file as that version left it: what is in the tables is what is there now, as far as there were columns for it."""
    now = folded(path.with_name("now.duckdb"), [staged])
    now.close()
    made = duckdb.connect(str(path))
    made.execute(FIRST)
    made.execute(f"ATTACH '{now.path}' AS now (READ_ONLY)")
    for step in range(2, version + 1):
        for statement in migrations.STEPS[step]:
            made.execute(statement)
    columns = "SELECT table_name, string_agg(column_name) FROM duckdb_columns() WHERE database_name = 'first' AND NOT internal "
    tables = "AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'first') GROUP BY 1"
    for table, names in made.execute(columns + tables).fetchall():
        made.execute(f"DELETE FROM {table}; INSERT INTO {table} ({names}) SELECT {names} FROM now.{table}")
    made.execute(f"UPDATE position SET version = {version}")
    made.close()


def shape(ledger: Ledger) -> list[tuple[object, ...]]:
    """Every column of every table and view, with its type and its comment."""
    reader = ledger.reader()
    found = reader.execute(
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() "
        "WHERE NOT internal AND table_name <> 'stage' ORDER BY ALL"
    ).fetchall()
    reader.close()
    return found


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_earlier_version_becomes_this_one_with_all_that_it_holds(version: int, tmp_path: Path) -> None:
    staged = [stage(*each) for each in long_log(600)]
    of_version(version, tmp_path / "first.duckdb", staged)
    file = LedgerFile(tmp_path / "first.duckdb", memory="256MB")
    fresh = folded(tmp_path / "fresh.duckdb", [staged])
    assert rows(file.ledger) == rows(fresh)
    assert shape(file.ledger) == shape(fresh)
    fresh.close()
    file.close()
    assert not list(tmp_path.glob("*aside*"))
    Ledger(tmp_path / "first.duckdb").close()


def test_a_migration_that_is_killed_leaves_the_old_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = [stage(*each) for each in long_log(50)]
    of_version(1, tmp_path / "first.duckdb", staged)
    monkeypatch.setitem(migrations.STEPS, VERSION, (*migrations.STEPS[VERSION], "SELECT error('the disk is gone');"))
    with pytest.raises(duckdb.Error, match="the disk is gone"):
        Ledger(tmp_path / "first.duckdb")
    monkeypatch.undo()
    ledger = Ledger(tmp_path / "first.duckdb")
    assert ledger.position == staged[-1][0]
    ledger.close()


def test_every_version_leads_to_this_one() -> None:
    assert sorted(migrations.STEPS) == list(range(2, VERSION + 1))
    assert all(migrations.migration(found) for found in range(1, VERSION))
    assert migrations.migration(VERSION + 1) is None and migrations.migration(0) is None


def test_a_later_version_is_put_aside_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    staged = [stage(*each) for each in long_log(20)]
    ledger = folded(path, [staged])
    ledger.execute(f"UPDATE position SET version = {VERSION + 1}")
    ledger.close()
    with pytest.raises(LedgerOutdated):
        Ledger(path)
    LedgerFile(path, memory="256MB").close()
    kept = duckdb.connect(str(tmp_path / "ledger.aside-1.duckdb"))
    assert kept.execute("SELECT version, sequence FROM position").fetchall() == [(VERSION + 1, staged[-1][0])]
    kept.close()


# -- gaps --------------------------------------------------------------------------------------------------------------


def gaps_of(ledger: Ledger) -> list[tuple[int, int, int]]:
    reader = ledger.reader()
    found = reader.execute("SELECT after, sequence, missing FROM gaps ORDER BY sequence").fetchall()
    reader.close()
    return found


def without(staged: list[Staged], *holes: range) -> list[Staged]:
    return [row for row in staged if not any(row[0] in hole for hole in holes)]


def test_what_was_gone_before_it_was_read_is_said(tmp_path: Path) -> None:
    staged = [stage(*each) for each in long_log(300)]
    left = without(staged, range(51, 101), range(200, 201))
    ledger = folded(tmp_path / "ledger.duckdb", [left[:50], left[50:]])
    assert gaps_of(ledger) == [(50, 101, 50), (199, 201, 1)]
    reader = ledger.reader()
    history = queries.history(reader, AskHistory())
    assert [gap.missing for gap in history.gaps] == [1, 50]
    assert history.gaps[1].begin == datetime.fromtimestamp(staged[49][1] / 1e6, UTC)
    assert history.gaps[1].end == datetime.fromtimestamp(staged[100][1] / 1e6, UTC)
    since = history.gaps[0].begin
    assert [gap.missing for gap in queries.stats(reader, AskStats(since=since)).gaps] == [1]
    assert queries.history(reader, AskHistory(since=history.gaps[0].end + timedelta(days=1))).gaps == ()
    reader.close()
    ledger.close()


def test_a_log_that_begins_late_or_holds_all_has_no_gap(tmp_path: Path) -> None:
    staged = [stage(*each) for each in long_log(100)]
    for name, part in (("all", staged), ("late", staged[40:])):
        ledger = folded(tmp_path / f"{name}.duckdb", [part])
        assert gaps_of(ledger) == []
        ledger.close()


@pytest.mark.parametrize("seed", range(3))
def test_gaps_do_not_hang_on_how_the_log_comes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    staged = [stage(*each) for each in long_log(200)]
    left = [row for row in staged if chance.random() > 0.2]
    live, rebuilt = folded(tmp_path / "live.duckdb", cut(left, chance)), loaded(tmp_path / "rebuilt.duckdb", left)
    assert gaps_of(live) == gaps_of(rebuilt) != []
    live.close()
    rebuilt.close()


def test_a_rebuild_keeps_gaps_and_finds_the_one_before_it(tmp_path: Path) -> None:
    staged = [stage(*each) for each in long_log(300)]
    old = folded(tmp_path / "ledger.duckdb", [without(staged[:150], range(51, 101))])
    old.close()
    loaded(tmp_path / "rebuilt.duckdb", staged[200:]).close()
    replace(tmp_path / "ledger.duckdb", tmp_path / "rebuilt.duckdb")
    ledger = Ledger(tmp_path / "ledger.duckdb")
    assert gaps_of(ledger) == [(50, 101, 50), (150, 201, 50)]
    ledger.close()
    loaded(tmp_path / "again.duckdb", staged[100:]).close()
    replace(tmp_path / "ledger.duckdb", tmp_path / "again.duckdb")
    ledger = Ledger(tmp_path / "ledger.duckdb")
    assert gaps_of(ledger) == [(50, 101, 50)], "what the log still holds is no gap"
    ledger.close()


# -- roll-ups ------------------------------------------------------------------------------------------------------------


def of_days(count: int, a_day: int) -> list[Staged]:
    """The same log day after day, each behind the last."""
    staged = [stage(*each) for each in long_log(a_day)]
    made = []
    for number in range(count):
        for sequence, micros, kind, body in staged:
            said = json.loads(body)
            said |= {key: said[key] + number * len(staged) for key in ("opened", "covers", "request") if key in said}
            moved = micros + number * 86_400 * 1_000_000
            made.append((sequence + number * len(staged), moved, kind, json.dumps(said)))
    return made


def detail(file: LedgerFile) -> tuple[int, int]:
    """Days of which there is detail, and days that are rolled up."""
    reader = file.ledger.reader()
    (found,) = reader.execute(
        "SELECT (SELECT count(DISTINCT ended_at::DATE) FROM ended_flights), (SELECT count(DISTINCT day) FROM days)"
    ).fetchall()
    reader.close()
    return found


def figures(file: LedgerFile) -> list[tuple[object, ...]]:
    reader = file.ledger.reader()
    found = queries.stats(reader, AskStats(by="day", limit=100)).figures
    reader.close()
    return [(each.name, each.flights, each.requests, each.fetched_bytes) for each in found]


@pytest.fixture
def file(tmp_path: Path) -> LedgerFile:
    made = LedgerFile(tmp_path / "ledger.duckdb", memory="256MB")
    made.ledger.fold(of_days(8, 200))
    return made


def last_moment(file: LedgerFile) -> datetime:
    reader = file.ledger.reader()
    ((last,),) = reader.execute("SELECT max(ended_at) FROM ended_flights").fetchall()
    reader.close()
    return last.replace(tzinfo=UTC)


async def test_what_is_old_is_rolled_up_by_itself(file: LedgerFile) -> None:
    before, there = figures(file), detail(file)[0]
    now = last_moment(file)
    aging = Aging(file, days=3, size=0)
    await aging.look(now)
    assert detail(file) == (4, there - 4)
    await aging.look(now)
    assert detail(file) == (4, there - 4)
    await aging.look(now + timedelta(days=1))
    assert detail(file) == (3, there - 3)
    assert figures(file) == before
    await Aging(file, days=0, size=0).look(now + timedelta(days=999))
    assert detail(file) == (3, there - 3)
    file.close()


async def test_what_is_too_much_is_rolled_up_from_the_oldest_on(file: LedgerFile) -> None:
    before, now = figures(file), last_moment(file)
    await Aging(file, days=0, size=1 << 40).look(now)
    assert detail(file)[1] == 0
    await Aging(file, days=0, size=1).look(now)
    assert detail(file)[0] == 2, "yesterday and today stay"
    assert figures(file) == before
    file.close()

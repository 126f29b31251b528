"""Queries in other people's words beside the ledger's own work: a place of their own, and no more than that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import duckdb
import pytest

from pullonce.errors import Permanent
from schemas.ledger import AskHistory, AskSql, Table
from services.ledger.answers import queries, sandbox
from services.ledger.answers.queries import NoAnswer
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.guests import GUESTS, QUEUE
from services.ledger.fold.staging import stage
from tests.support.buses import soon
from tests.support.long_log import long_log

ENDLESS = "SELECT count(*) FROM range(10000000) a, range(10000000) b"
HOARD = (
    "SELECT count(*) FROM (SELECT list(range || repeat('x', 1000)) AS kept FROM range(150000)) a, range(10000000000) b "
    "WHERE kept[1 + b.range % 100] = 'y'"
)
MUCH = "SELECT len(list(range || repeat('x', 1000))) FROM range(150000)"


@pytest.fixture
def file(tmp_path: Path) -> LedgerFile:
    made = LedgerFile(tmp_path / "ledger.duckdb", memory="384MB")
    made.ledger.fold([stage(*each) for each in long_log(500)])
    return made


class Guest:
    """Somebody's query, and whether it runs."""

    def __init__(self, file: LedgerFile, query: str) -> None:
        self._began = threading.Event()
        self.asked = asyncio.ensure_future(file.read_for_guest(self._running(query)))

    def _running(self, query: str) -> Callable[[duckdb.DuckDBPyConnection], Table]:
        def run(reader: duckdb.DuckDBPyConnection) -> Table:
            self._began.set()
            return sandbox.run(reader, AskSql(query=query), patience=600.0)

        return run

    async def runs(self) -> None:
        await soon(asyncio.to_thread(self._began.wait))


@asynccontextmanager
async def guests(file: LedgerFile, query: str, count: int) -> AsyncIterator[list[Guest]]:
    """That many who ask; in the end they are sent away, and the file is closed."""
    asked = [Guest(file, query) for _ in range(count)]
    try:
        for each in asked[:GUESTS]:
            await each.runs()
        yield asked
    finally:
        await asyncio.to_thread(file.close)
        await asyncio.gather(*(each.asked for each in asked), return_exceptions=True)


async def test_queries_without_end_keep_no_question_of_the_page_waiting(file: LedgerFile) -> None:
    async with guests(file, ENDLESS, 8) as asked:
        for _ in range(3):
            found = await soon(file.read(lambda reader: queries.history(reader, AskHistory())))
            assert found.pulls
        assert not any(each.asked.done() for each in asked)


async def test_more_than_may_wait_are_refused_at_once(file: LedgerFile) -> None:
    async with guests(file, ENDLESS, QUEUE):
        with pytest.raises(Permanent) as caught:
            await soon(file.read_for_guest(lambda reader: None))
        assert caught.value.code == "sql.busy"


async def test_who_leaves_the_line_gives_no_place_to_another_before_it_is_free(file: LedgerFile) -> None:
    async with guests(file, ENDLESS, QUEUE) as asked:
        for each in asked:
            each.asked.cancel()
        await asyncio.gather(*(each.asked for each in asked), return_exceptions=True)
        with pytest.raises(Permanent):
            await soon(file.read_for_guest(lambda reader: None))


async def test_a_query_that_holds_the_memory_goes_when_the_ledger_needs_it(file: LedgerFile) -> None:
    async with guests(file, HOARD, 1) as (hoarder,):

        def much(reader: duckdb.DuckDBPyConnection) -> int:
            return int(reader.execute(MUCH).fetchall()[0][0])

        while not hoarder.asked.done():  # until what it holds and what we need are more than there is
            assert await soon(file.read(much)) == 150_000
        with pytest.raises(NoAnswer) as caught:
            await hoarder.asked
        assert caught.value.code == "sql.memory"


async def test_the_file_is_exchanged_though_queries_run(file: LedgerFile) -> None:
    async with guests(file, ENDLESS, GUESTS) as asked:
        await soon(file.exchange(lambda _: None))
        for each in asked:
            with pytest.raises(NoAnswer):
                await soon(each.asked)
        assert (await soon(file.read(lambda reader: queries.history(reader, AskHistory())))).pulls

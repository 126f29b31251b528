"""Death of the ledger at each step of a fold, a roll-up and a rebuild: no row is lost or doubled, and a whole file is there."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from pullonce.failpoints import LEDGER_STEPS
from schemas.ledger import AskRebuild, AskStats, Done, Error
from services.ledger.answers import queries
from services.ledger.fold.projection import Ledger
from services.ledger.fold.rebuild import NAME
from services.ledger.fold.staging import Staged
from tests.integration.ledger.test_service import ask, events, rows_from, rows_of, staged_log, until_folded
from tests.support.buses import NatsPlace, eventually, soon
from tests.support.chaos import Crew
from tests.support.ledger_life import live, log
from tests.support.ledgers import folded, rows
from tests.support.nats_server import NatsServer

OF_THE_SERVICE = "rebuild.folded"
"""Passed by the process that makes a ledger anew, which the life in `tests/support/ledger_life.py` has no need of."""


@pytest.mark.parametrize("step", [each for each in LEDGER_STEPS if each != OF_THE_SERVICE])
async def test_a_death_at(step: str, tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    armed.mkdir()
    (armed / step).touch()
    path = tmp_path / "home" / "ledger.duckdb"
    path.parent.mkdir()
    life = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.ledger_life", str(path), env={**os.environ, "PULLONCE_FAILPOINTS": str(armed)}
    )
    assert await soon(life.wait()) == -signal.SIGKILL and not list(armed.iterdir()), "nobody came by"
    staged = log()
    ledger = Ledger(path)
    assert figures(ledger) == figures_of(tmp_path / "as-far.duckdb", staged[: ledger.position])
    once(ledger)
    ledger.close()
    names = [each.suffix == ".unfinished" for each in ledger.exports.iterdir()]
    assert names == ([] if step.startswith("fold") else [step == "export.written"]), "it has its name once it is whole"
    await live(path)
    ledger = Ledger(path)
    again = folded(tmp_path / "again.duckdb", [staged])
    assert figures(ledger) == figures(again)
    assert {name: each for name, each in rows(ledger).items() if name == "events"} == {"events": rows(again)["events"]}
    once(ledger)
    for each in (ledger, again):
        each.close()
    assert {each.name for each in path.parent.iterdir()} == {"ledger.duckdb", "export"}, "nothing is put aside or left"


async def test_deaths_of_the_service_and_of_its_rebuild(bus_server: NatsServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Crew(home, bus_server.url, environ={"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}, ledger=1) as crew:
        (member,) = crew.members
        async with NatsPlace(bus_server.url).connect() as bus:
            await bus.log.append_all(events(300))
            await until_folded(bus)
            crew.arm(OF_THE_SERVICE)
            answer = await ask(bus, AskRebuild())
            assert isinstance(answer, Error) and answer.code == "ledger.rebuild"
            assert member.deaths == [] and not list((home / "ledger").glob(f"{NAME}*"))
            for step in ("rebuild.carried", "rebuild.replaced"):
                crew.arm(step)
                asked = asyncio.ensure_future(ask(bus, AskRebuild()))
                await eventually(lambda step=step: passed(crew, step))
                await bus.log.append_all(events(100))
                await until_folded(bus)
                asked.cancel()
            assert isinstance(await ask(bus, AskRebuild()), Done)
            again = rows_from(tmp_path / "again" / "ledger.duckdb", await staged_log(bus))
        assert member.deaths == [-signal.SIGKILL] * 2
    assert rows_of(home / "ledger" / "ledger.duckdb") == again
    assert {each.name for each in (home / "ledger").iterdir()} == {"ledger.duckdb", "export", "lock"}


async def passed(crew: Crew, step: str) -> bool:
    return not crew.is_armed(step)


def once(ledger: Ledger) -> None:
    for name, found in rows(ledger).items():
        assert len(found) == len(set(map(repr, found))), name


def figures_of(path: Path, staged: list[Staged]) -> list[tuple[object, ...]]:
    ledger = folded(path, [staged] if staged else [])
    found = figures(ledger)
    ledger.close()
    return found


def figures(ledger: Ledger) -> list[tuple[object, ...]]:
    """What each day and image came to, however it is kept."""
    reader = ledger.reader()
    stats = queries.stats(reader, AskStats(by="day", limit=100)).figures + queries.stats(reader, AskStats(by="image")).figures
    reader.close()
    return [(each.name, each.flights, each.failed, each.requests, each.asked_bytes, each.fetched_bytes) for each in stats]

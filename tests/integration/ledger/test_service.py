"""The ledger as a process on a real bus: killed at any moment, made anew, before another log; and its keeper under pressure."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from pullonce.bus.ports import Bus
from schemas import ledger as questions
from schemas.events import Event
from schemas.ledger import AskHistory, AskRebuild, AskSql, Question, Table, decode_answer, encode
from schemas.status import decode_pong
from schemas.subjects import LEDGER_SUBJECT, PING_SUBJECT
from services.ledger.fold import keeper as keeping
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.keeper import Keeper
from services.ledger.fold.projection import Ledger
from services.ledger.fold.staging import Staged, stage
from tests.support.buses import LIMIT, NatsPlace, Reader, eventually, running, soon
from tests.support.ledgers import Rows, loaded, rows
from tests.support.long_log import long_log
from tests.support.nats_server import NatsServer

KILLS = 5


class Service:
    """`python -m services.ledger` with a home of its own."""

    def __init__(self, home: Path, url: str, **more: str) -> None:
        self.path = home / "ledger" / "ledger.duckdb"
        settings = {"PULLONCE_HOME": str(home), "PULLONCE_NATS_URL": url, "PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}
        self._environ = {**os.environ, **settings, **more}
        self._process: asyncio.subprocess.Process | None = None

    def set(self, name: str, value: str) -> None:
        """Another environment, from the next start on."""
        self._environ[name] = value

    async def ended(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self._process is not None
        code = await soon(self._process.wait())
        self._process = None
        return code

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.ledger", env=self._environ)

    async def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = await soon(self._process.wait())
        self._process = None
        return code

    async def kill_if_left(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.end(signal.SIGKILL)


@asynccontextmanager
async def service(home: Path, url: str, **more: str) -> AsyncIterator[Service]:
    made = Service(home, url, **more)
    await made.start()
    try:
        yield made
    finally:
        await made.kill_if_left()


def events(length: int) -> list[Event]:
    return [event for _, _, event in long_log(length)]


async def ask(bus: Bus, question: Question, within: float = LIMIT) -> questions.Answer:
    return decode_answer(await bus.signals.request(LEDGER_SUBJECT, encode(question), timeout=within))


async def reached(bus: Bus) -> int:
    """How far the ledger has folded; -1 while there is none."""
    try:
        # A ledger that is killed takes the questions with it that it was just given.
        answer = await ask(bus, AskSql(query="SELECT sequence FROM position"), within=2.0)
    except TimeoutError:
        return -1
    assert isinstance(answer, Table), answer
    return int(answer.rows[0][0])


async def until_folded(bus: Bus) -> None:
    last = await bus.log.last_sequence()

    async def there() -> bool:
        return await reached(bus) >= last

    await eventually(there)


async def staged_log(bus: Bus) -> list[Staged]:
    last = await bus.log.last_sequence()
    async with Reader(bus) as reader:
        await reader.until(lambda read: bool(read.sequences) and read.sequences[-1] >= last)
        return [stage(each.sequence, each.time, each.event, each.subject, each.malformed) for each in reader.read]


def rows_of(path: Path) -> Rows:
    ledger = Ledger(path)
    found = rows(ledger)
    ledger.close()
    return found


def rows_from(path: Path, staged: Sequence[Staged]) -> Rows:
    ledger = loaded(path, staged)
    found = rows(ledger)
    ledger.close()
    return found


@pytest.mark.parametrize("seed", range(2))
async def test_kill_9_at_any_moment_neither_loses_nor_doubles_a_row(seed: int, nats_server: NatsServer, tmp_path: Path) -> None:
    chance = random.Random(seed)
    place = NatsPlace(nats_server.url)
    async with place.connect() as bus, service(tmp_path / "home", nats_server.url) as ledger:

        async def publish() -> None:
            for event in events(3000):
                await bus.log.append(event)

        publishing = asyncio.ensure_future(publish())
        for _ in range(KILLS):
            before = await bus.log.last_sequence()
            wanted = before + chance.randrange(1, 200)

            async def folded_further(at_least: int = wanted) -> bool:
                return publishing.done() or await reached(bus) >= at_least

            await eventually(folded_further)
            await ledger.end(signal.SIGKILL)
            await ledger.start()
        await soon(publishing)
        await until_folded(bus)
        assert await ledger.end(signal.SIGTERM) == 0
        live = rows_of(ledger.path)
        again = rows_from(tmp_path / "again" / "ledger.duckdb", await staged_log(bus))
    for name in live:
        assert live[name] == again[name], name
    assert len(live["events"]) >= 3000 and not live["waiting"]


async def test_a_rebuild_equals_what_was_kept_live_and_goes_on_from_there(nats_server: NatsServer, tmp_path: Path) -> None:
    async with NatsPlace(nats_server.url).connect() as bus, service(tmp_path / "home", nats_server.url) as ledger:
        story = events(1500)
        await bus.log.append_all(story[:700])
        await bus.signals.publish("pull.completed.default.x.y", b'{"no": "event"}')
        await until_folded(bus)
        rebuilding = asyncio.ensure_future(ask(bus, AskRebuild()))
        for event in story[700:1000]:
            await bus.log.append(event)
        answer = await rebuilding
        assert isinstance(answer, questions.Done), answer
        await bus.log.append_all(story[1000:])
        await until_folded(bus)
        assert await ledger.end(signal.SIGTERM) == 0
        again = rows_from(tmp_path / "again" / "ledger.duckdb", await staged_log(bus))
    live = rows_of(ledger.path)
    assert live == again
    assert len(live["malformed"]) == 1
    assert sorted(each.name for each in ledger.path.parent.iterdir()) == ["export", "ledger.duckdb", "lock"]


async def test_a_second_ledger_of_one_home_does_not_start(nats_server: NatsServer, tmp_path: Path) -> None:
    async with NatsPlace(nats_server.url).connect() as bus, service(tmp_path / "home", nats_server.url) as first:
        await bus.log.append_all(events(10))
        await until_folded(bus)
        async with service(tmp_path / "home", nats_server.url) as second:
            assert second._process is not None
            assert await soon(second._process.wait()) == 1
            second._process = None
        assert await reached(bus) >= 10
        assert await first.end(signal.SIGTERM) == 0


async def test_a_file_that_cannot_be_read_is_put_aside_and_made_anew(nats_server: NatsServer, tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger" / "ledger.duckdb"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 1000)
    async with NatsPlace(nats_server.url).connect() as bus, service(tmp_path / "home", nats_server.url):
        await bus.log.append_all(events(10))
        await until_folded(bus)
    assert (path.parent / "ledger.aside-1.duckdb").read_bytes().startswith(b"no database")


async def test_another_log_begins_another_ledger(nats_server: NatsServer, tmp_path: Path) -> None:
    async with service(tmp_path / "home", nats_server.url) as ledger:
        async with NatsPlace(nats_server.url).connect() as bus:
            await bus.log.append_all(events(500))
            await until_folded(bus)
        nats_server.kill()
        nats_server.wipe()
        nats_server.start()
        async with NatsPlace(nats_server.url).connect() as bus:
            await bus.log.append_all(events(100))

            async def begun_anew() -> bool:
                return 0 < await reached(bus) < 500

            await eventually(begun_anew)
            await until_folded(bus)
        assert await ledger.end(signal.SIGTERM) == 0
    assert (ledger.path.parent / "ledger.aside-1.duckdb").exists()
    assert len(rows_of(ledger.path)["events"]) < 500


async def test_it_answers_pings_and_http(nats_server: NatsServer, tmp_path: Path) -> None:
    async with NatsPlace(nats_server.url).connect() as bus, service(tmp_path / "home", nats_server.url):
        await bus.log.append_all(events(300))
        await until_folded(bus)
        (pong,) = [decode_pong(body) for body in await bus.signals.gather(PING_SUBJECT, b"", timeout=0.5)]
        assert pong.service == "ledger" and pong.details["position"] == await bus.log.last_sequence()
        asked = await ask(bus, AskHistory(limit=3))
        async with aiohttp.ClientSession(str(pong.details["http"])) as session:
            async with session.get("/api/history", params={"limit": "3"}) as response:
                assert decode_answer(await response.read()) == asked
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            for path, status in {
                "/healthz": 200, "/api/stats?by=day": 200, "/api/explain?pull=1": 200, "/api/explain?pull=999999": 404,
                "/api/sql?query=SELECT+1": 200, "/api/sql?query=DROP+TABLE+events": 400, "/api/history?limit=0": 400,
                "/api/rebuild": 404, "/api/export": 404, "/nothing": 404,
            }.items():  # fmt: skip
                async with session.get(path) as response:
                    assert response.status == status, path
            async with session.post("/api/sql", data=b"{}") as response:
                assert response.status == 405


async def test_a_keeper_reads_no_further_than_it_can_fold(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "FULL", 50)
    monkeypatch.setattr(keeping, "PAUSE", 0.0)
    shelf = LedgerFile(tmp_path / "ledger.duckdb", memory="256MB")
    async with NatsPlace(nats_server.url).connect() as bus:
        await bus.log.append_all(events(1000))
        last = await bus.log.last_sequence()
        keeper = Keeper(bus.log, shelf)
        async with running(keeper.run()):
            while keeper.position < last:
                await soon(keeper.folded())
        assert keeper.folds >= last // 50 - 1
        again = rows_from(tmp_path / "again" / "ledger.duckdb", await staged_log(bus))
    assert rows(shelf.ledger) == again
    shelf.close()

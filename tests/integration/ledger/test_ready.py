"""When a ledger calls itself ready: with the bus, at the end of the log, and while it keeps up with whatever comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from pullonce.bus.ports import Bus
from schemas.status import Pong, decode_pong
from schemas.subjects import PING_SUBJECT
from services.ledger.fold import keeper as keeping
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.keeper import Keeper
from tests.integration.ledger.test_service import events, service, until_folded
from tests.support.buses import NatsPlace, eventually, running
from tests.support.deployment import Deployment
from tests.support.nats_server import NatsServer

STEADY = 1500


async def test_steady_traffic_leaves_it_ready(nats_server: NatsServer, tmp_path: Path) -> None:
    async with NatsPlace(nats_server.url).connect() as bus, service(tmp_path / "home", nats_server.url):
        await bus.log.append_all(events(100))
        await until_folded(bus)
        pong = await the_pong(bus)
        behind = []
        async with aiohttp.ClientSession(str(pong.details["http"])) as session:

            async def publish() -> None:
                for event in events(STEADY):
                    await bus.log.append(event)

            publishing = asyncio.ensure_future(publish())
            while not publishing.done():
                assert await ready(session) == (200, "ready")
                behind.append(int((await the_pong(bus)).details["behind"]) > 0)
            await publishing
            assert any(behind), "it always waits for some more events before it folds"
            nats_server.kill()
            await eventually(lambda: answered(session, (503, "no bus")))
            nats_server.start()
            await eventually(lambda: answered(session, (200, "ready")))


async def test_it_is_not_ready_before_the_end_of_the_log(nats_server: NatsServer, tmp_path: Path) -> None:
    shelf = LedgerFile(tmp_path / "ledger.duckdb", memory="256MB")
    async with NatsPlace(nats_server.url).connect() as bus:
        await bus.log.append_all(events(1000))
        keeper, said = Keeper(bus.log, shelf), set[tuple[bool, str]]()
        last = await bus.log.last_sequence()

        async def listen() -> None:
            while True:
                await keeper.folded()
                said.add((keeper.position >= last, keeper.state))

        assert keeper.state == "catching up"
        async with running(listen()), running(keeper.run()):
            await eventually(lambda: is_in(keeper, "ready"))
        assert (True, "ready") in said and (False, "ready") not in said
        again = Keeper(bus.log, shelf)
        assert again.state == "catching up"
        async with running(again.run()):  # there is nothing to read, and that is told as well
            await eventually(lambda: is_in(again, "ready"))
    shelf.close()


async def test_it_is_not_ready_when_its_fold_does_not_keep_up(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LATE", 0.0)
    shelf = LedgerFile(tmp_path / "ledger.duckdb", memory="256MB")
    async with NatsPlace(nats_server.url).connect() as bus:
        keeper = Keeper(bus.log, shelf)
        async with running(keeper.run()):
            await eventually(lambda: is_in(keeper, "ready"))
            monkeypatch.setattr(keeping, "PAUSE", 600.0)
            await bus.log.append_all(events(10))
            await eventually(lambda: is_in(keeper, "behind"))
    shelf.close()


async def test_up_says_where_its_ledger_answers(tmp_path: Path) -> None:
    place = Deployment(tmp_path / "home", ledger=True, environ={"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}).start()
    try:
        words = "the ledger answers at "

        async def told() -> bool:
            return any(line.startswith(words) for line in place.output)

        await eventually(told)
        (address,) = [line.removeprefix(words) for line in place.output if line.startswith(words)]
        async with aiohttp.ClientSession(address) as session:
            await eventually(lambda: answered(session, (200, "ready")))
    finally:
        await asyncio.to_thread(place.stop)


async def is_in(keeper: Keeper, state: str) -> bool:
    return keeper.state == state


async def the_pong(bus: Bus) -> Pong:
    return decode_pong(await bus.signals.request(PING_SUBJECT, b"", timeout=5))


async def ready(session: aiohttp.ClientSession) -> tuple[int, str]:
    async with session.get("/readyz") as response:
        return response.status, str((await response.json())["status"])


async def answered(session: aiohttp.ClientSession, wanted: tuple[int, str]) -> bool:
    return await ready(session) == wanted

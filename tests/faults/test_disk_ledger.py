"""The ledger's disk refuses: it says so once, goes on answering, and folds on by itself; no row is lost or doubled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import aiohttp
import duckdb
import pytest

from pullonce.bus.ports import Bus
from pullonce.errors import Permanent
from schemas.ledger import AskExport, AskRebuild, Done, Error
from schemas.status import Pong, decode_pong
from schemas.subjects import PING_SUBJECT
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.staging import stage
from services.ledger.fold.trouble import trouble
from tests.faults.test_disk_log import no_room
from tests.integration.ledger.test_service import ask, events, reached, rows_from, rows_of, staged_log, until_folded
from tests.support.buses import NatsPlace, eventually
from tests.support.chaos import Crew, Member
from tests.support.chaos_disk import quota_disk, remount, small_disk
from tests.support.ledgers import folded, rows
from tests.support.long_log import long_log
from tests.support.nats_server import NatsServer

HTTP = {"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}
CHECKPOINT = 16_000_000
"""Bytes beside the file at which DuckDB works them into it."""


@pytest.mark.parametrize(("disk", "why"), [(small_disk, "bytes were needed"), (quota_disk, "quota")])
async def test_no_room(
    disk: Callable[[Path, int], AbstractContextManager[Path]], why: str, bus_server: NatsServer, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with disk(home / "ledger", 32) as place, Crew(home, bus_server.url, environ=HTTP, ledger=1) as crew:
        (member,) = crew.members
        async with NatsPlace(bus_server.url).connect() as bus:
            await bus.log.append_all(events(500))
            await until_folded(bus)
            told = await reached(bus)
            with no_room(place):
                await bus.log.append_all(events(2000))
                pong = await until_trouble(bus)
                assert str(pong.details["trouble"]).startswith("disk.full: ") and why in str(pong.details["trouble"])
                assert str(place / "ledger.duckdb") in str(pong.details["trouble"])
                assert await ready(pong) == 503
                assert await reached(bus) == told, "it answers, from what is in the file"
                refused = await ask(bus, AskExport())
                assert isinstance(refused, Error) and refused.code == "disk.full"
                refused = await ask(bus, AskRebuild())
                assert isinstance(refused, Error) and refused.code == "ledger.rebuild"
                left = {each.name for each in place.iterdir()} - {"hog"}
                assert left == {"ledger.duckdb", "ledger.duckdb.wal", "export", "lock"}, "room is given back"
                assert not list((place / "export").iterdir())
            await until_folded(bus)
            await eventually(lambda: is_over(bus))  # a commit is seen by readers before it is known to the keeper
            assert await ready(await the_pong(bus)) == 200
            assert isinstance(await ask(bus, AskExport()), Done)
            again = rows_from(tmp_path / "again" / "ledger.duckdb", await staged_log(bus))
        assert member.deaths == []
        assert len(said(member, "cannot fold")) == len(said(member, "folds again")) == 1
        crew.end()
        assert rows_of(place / "ledger.duckdb") == again


async def test_no_room_for_a_checkpoint(tmp_path: Path) -> None:
    """DuckDB then takes the open database away from everybody, though all that was committed is in the file."""
    log = [stage(*each) for each in long_log(40_000)]
    with small_disk(tmp_path / "disk", 64) as disk:
        shelf = LedgerFile(disk / "ledger.duckdb", memory="256MB")
        position = 0

        async def fold() -> None:
            nonlocal position
            batch = log[position : position + 1000]
            await shelf.write(lambda ledger: ledger.fold(batch))
            position += len(batch)

        while shelf.ledger.to_work_in < CHECKPOINT - 2_000_000:
            await fold()
        with no_room(disk):
            os.truncate(disk / "hog", (disk / "hog").stat().st_size - 4_000_000)
            with pytest.raises(duckdb.FatalException) as failed:
                while position < len(log):
                    await fold()
            refused = trouble(failed.value, 7)
            assert refused is not None and refused.code == "disk.full"
            assert f"no space left for {disk}/ledger.duckdb; 7 bytes were needed" in str(refused)
            assert await shelf.read(_count) == position
        await fold()
        assert await shelf.read(_count) == position and shelf.ledger.to_work_in < CHECKPOINT
        found = rows(shelf.ledger)
        shelf.close()
    again = folded(tmp_path / "again.duckdb", [log[:position]])
    assert found == rows(again)
    again.close()


async def test_a_forbidden_file(bus_server: NatsServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Crew(home, bus_server.url, environ=HTTP, ledger=1) as crew:
        async with NatsPlace(bus_server.url).connect() as bus:
            await bus.log.append_all(events(100))
            await until_folded(bus)
            files = sorted((home / "ledger").glob("ledger.duckdb*"))
            if chattr("+i", *files):
                pytest.skip("this file system has no immutable files, and root is forbidden nothing else")
            try:
                await bus.log.append_all(events(100))
                pong = await until_trouble(bus)
            finally:
                chattr("-i", *files)
            assert str(pong.details["trouble"]).startswith("disk.denied: ") and str(home) in str(pong.details["trouble"])
            await until_folded(bus)
        assert crew.members[0].deaths == []


async def test_one_that_cannot_even_begin_says_why(bus_server: NatsServer, tmp_path: Path) -> None:
    """It ends, by the exit code of what is no defect, and is started again until the disk takes it."""
    home = tmp_path / "home"
    with small_disk(home / "ledger", 32) as place:
        remount(place, "ro")
        crew = Crew(home, bus_server.url, environ=HTTP, ledger=1)
        member = Member("ledger-1", "services.ledger", crew.environ, home / "ledger-1.log")
        try:

            async def ended() -> bool:
                return bool(member.deaths)

            await eventually(ended)
            remount(place, "rw")
            async with NatsPlace(bus_server.url).connect() as bus:
                await bus.log.append_all(events(10))
                await until_folded(bus)
        finally:
            member.end()
    assert set(member.deaths[:-1]) == {1} and "is on a read-only file system" in member.output
    assert "defect" not in member.output and not list((home / "ledger").glob("*aside*"))


async def test_a_new_ledger_on_a_full_disk_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        with no_room(disk), pytest.raises(Permanent, match="no space left"):
            LedgerFile(disk / "ledger.duckdb", memory="256MB")
        assert not list(disk.glob("*aside*"))
        LedgerFile(disk / "ledger.duckdb", memory="256MB").close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (duckdb.IOException('IO Error: Could not fsync file "/l/x.wal": Input/output error'), "disk.damaged"),
        (duckdb.IOException('IO Error: Cannot open file "/l/x": Read-only file system'), "disk.readonly"),
        (
            duckdb.IOException(r'IO Error: Async write failed: {"m":"Could not write file \"/l/x\": No space left on device"}'),
            "disk.full",
        ),
        (duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate"), "ledger.memory"),
        (duckdb.IOException('IO Error: Could not set lock on file "/l/x": Conflicting lock is held'), None),
        (duckdb.ConversionException('Could not convert file "x": No space left on device'), None),
    ],
)
def test_what_duckdb_says_of_a_disk_is_understood(error: duckdb.Error, code: str | None) -> None:
    found = trouble(error)
    assert (found.code if found else None) == code


def chattr(attribute: str, *paths: Path) -> int:
    return subprocess.run(["chattr", attribute, *paths], capture_output=True, check=False).returncode


def said(member: Member, words: str) -> list[str]:
    return [line for line in member.output.splitlines() if words in line]


async def the_pong(bus: Bus) -> Pong:
    found: list[Pong] = []

    async def answers() -> bool:
        pongs = [decode_pong(body) for body in await bus.signals.gather(PING_SUBJECT, b"", timeout=0.3)]
        found[:] = [pong for pong in pongs if pong.service == "ledger"]
        return bool(found)

    await eventually(answers)
    return found[0]


async def until_trouble(bus: Bus) -> Pong:
    async def there() -> bool:
        return "trouble" in (await the_pong(bus)).details

    await eventually(there)
    return await the_pong(bus)


async def is_over(bus: Bus) -> bool:
    return "trouble" not in (await the_pong(bus)).details


async def ready(pong: Pong) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{pong.details['http']}/readyz") as response:
        return response.status


def _count(reader: duckdb.DuckDBPyConnection) -> int:
    return int(reader.execute("SELECT count(*) FROM events").fetchall()[0][0])

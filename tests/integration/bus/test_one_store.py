"""Two homes that serve a store of one name on one bus: the second one is told, instead of both waiting for each other."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pullonce.bus.nats.bus import connect
from pullonce.config import BusSettings
from pullonce.store.content import open_store
from pullonce.worker.one_store import PATIENCE
from schemas.status import StoreNow, decode_store_now, encode
from schemas.subjects import store_now_subject
from tests.support.command import environment
from tests.support.nats_server import NatsServer

LIMIT = 60
Start = Callable[[str, Path], subprocess.Popen[str]]


@pytest.fixture
def start(nats_server: NatsServer) -> Iterator[Start]:
    """Starts a worker of a home, and returns when it does its work or has ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(role: str, home: Path) -> subprocess.Popen[str]:
        ready = home.parent / f"{home.name}-{role}-{len(started)}.ready"
        environ = environment(home, nats_server.url) | {"PULLONCE_READY_FILE": str(ready)}
        command = [sys.executable, "-m", f"services.{role}"]
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        started.append(process)
        while not ready.exists():
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        return process

    yield begin
    for process in started:
        process.terminate()
        process.communicate(timeout=LIMIT)


@pytest.mark.parametrize("first", ["fetcher", "unpacker"])
@pytest.mark.parametrize("second", ["fetcher", "unpacker"])
def test_another_home_is_refused(start: Start, tmp_path: Path, first: str, second: str) -> None:
    assert start(first, tmp_path / "a").poll() is None
    refused = start(second, tmp_path / "b")
    _, said = refused.communicate(timeout=LIMIT)
    assert refused.returncode == 1
    error = json.loads(said.splitlines()[-1])
    assert error["error"] == "StoreTaken"
    assert "PULLONCE_STORE" in error["message"] and "'default'" in error["message"]


def test_one_home_may_have_any_number(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "a"
    assert [start(role, home).poll() for role in ("fetcher", "unpacker", "fetcher", "unpacker")] == [None] * 4


def test_a_home_that_was_wiped_goes_on(start: Start, tmp_path: Path) -> None:
    home = tmp_path / "a"
    assert start("fetcher", home).poll() is None
    shutil.rmtree(home / "stores" / "default")
    assert start("unpacker", home).poll() is None


def test_a_store_may_move_when_nobody_serves_it(start: Start, tmp_path: Path) -> None:
    before = start("fetcher", tmp_path / "a")
    before.terminate()
    before.wait(LIMIT)
    assert start("fetcher", tmp_path / "b").poll() is None


async def look(url: str) -> list[StoreNow]:
    """Ask for as long as a worker does who serves this store."""
    async with connect(BusSettings(url=url, name="asks"), patience=10) as bus:
        answers = await bus.signals.gather(store_now_subject("default"), b"", timeout=PATIENCE)
    return [decode_store_now(each) for each in answers]


def test_who_could_not_be_heard_is_found_later(nats_server: NatsServer, start: Start, tmp_path: Path) -> None:
    """The first one stands still while the second begins. When it goes on, the one that began later ends."""
    first = start("fetcher", tmp_path / "a")
    first.send_signal(signal.SIGSTOP)
    second = start("unpacker", tmp_path / "b")
    assert second.poll() is None, "silence is no reason not to begin"
    [heard] = asyncio.run(look(nats_server.url))  # begun behind its own second look, which found nobody
    assert heard.pid == second.pid and second.poll() is None
    first.send_signal(signal.SIGCONT)
    _, said = second.communicate(timeout=LIMIT)
    assert second.returncode == 1 and "StoreTaken" in said
    assert first.poll() is None


def test_the_bus_comes_back_and_another_home_is_there(nats_server: NatsServer, start: Start, tmp_path: Path) -> None:
    """Both were cut off from each other, as by a partition: the one that began first stays."""
    first = start("unpacker", tmp_path / "a")
    first.send_signal(signal.SIGSTOP)
    second = start("fetcher", tmp_path / "b")
    nats_server.kill()
    first.send_signal(signal.SIGCONT)
    nats_server.start()
    _, said = second.communicate(timeout=LIMIT)
    assert second.returncode == 1 and "StoreTaken" in said
    assert first.poll() is None


async def test_an_answer_that_is_none_keeps_nobody_from_beginning(
    nats_server: NatsServer, start: Start, tmp_path: Path
) -> None:
    async with connect(BusSettings(url=nats_server.url, name="stranger"), patience=10) as bus:
        await bus.signals.answer(store_now_subject("default"), lambda body: b"what?")
        assert (await asyncio.to_thread(start, "fetcher", tmp_path / "a")).poll() is None


async def test_a_worker_tells_what_its_disk_holds_now(nats_server: NatsServer, start: Start, tmp_path: Path) -> None:
    home = tmp_path / "a"
    await asyncio.to_thread(start, "fetcher", home)
    root = home / "stores" / "default"
    async with connect(BusSettings(url=nats_server.url, name="asks"), patience=10) as bus:

        async def told() -> StoreNow:
            return decode_store_now(await bus.signals.request(store_now_subject("default"), b"", timeout=LIMIT))

        first = await told()
        assert first.incarnation == open_store(root).incarnation
        shutil.rmtree(root)
        assert (await told()).incarnation == ""
        renewed = open_store(root).incarnation
        assert (await told()).incarnation == renewed != first.incarnation
    assert decode_store_now(encode(first)) == first

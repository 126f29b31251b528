"""There is no room left for the event log: requests wait, none is lost, and all goes on once there is room again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pullonce.client import Client, connect
from tests.support.buses import NatsPlace, Reader, lost
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.chaos_disk import real_disk, small_disk
from tests.support.deployment import Deployment
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 60
REQUESTS = 50
CRITICAL = "critical write error"


@contextmanager
def no_room(disk: Path, *, but: int = 0, name: str = "hog") -> Iterator[None]:
    """Somebody else takes all the room there is, but for some bytes."""
    hog = disk / name
    with open(hog, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
        if but:
            file.truncate(file.tell() - but)
    yield
    hog.unlink()


async def test_a_server_of_ones_own_goes_on_when_it_is_restarted(registry: RegistryServer, tmp_path: Path) -> None:
    stacks = [stack(random.Random(n), 2, size=50_000) for n in range(3)]
    names = [registry.push("full/own", f"v{n}", picture(each)) for n, each in enumerate(stacks)]
    with small_disk(tmp_path / "nats", 32) as disk:
        server = NatsServer(disk).start()
        try:
            with Crew(tmp_path / "home", server.url, coordinator=1, fetcher=1, unpacker=1) as crew:
                async with connect(server.url, patience=LIMIT) as client:
                    await client.pull(names[0], timeout=LIMIT)
                    with no_room(disk):
                        pulls = ask(client, names[1])
                        await until(lambda: any(CRITICAL in line.lower() for line in server.output))
                        assert not any(pull.done() for pull in pulls)
                    await asyncio.to_thread(server.restart)
                    await asyncio.gather(*pulls)
                    await client.pull(names[2], timeout=LIMIT)
                    verdict = judge(await read_on(client))
                assert crew.unforeseen() == []
                assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
                assert verdict.counted == REQUESTS + 2
                assert damage(crew.store, {name: tar for each in stacks for name, tar in trees(each).items()}) == []
        finally:
            server.kill()


async def test_the_embedded_server_goes_on_by_itself(registry: RegistryServer, tmp_path: Path) -> None:
    stacks = [stack(random.Random(n), 2, size=50_000) for n in range(10, 12)]
    names = [registry.push("full/embedded", f"v{n}", picture(each)) for n, each in enumerate(stacks)]
    with small_disk(tmp_path / "home" / "nats", 32) as disk:
        pullonce = Deployment(tmp_path / "home").start()
        try:
            async with connect(pullonce.url, patience=LIMIT) as client:
                await client.pull(names[0], timeout=LIMIT)
                with no_room(disk):
                    pulls = ask(client, names[1])
                    await until(lambda: any("make room" in line for line in pullonce.output))
                    assert not any(pull.done() for pull in pulls)
                await asyncio.gather(*pulls)
                verdict = judge(await read_on(client))
            assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
            assert verdict.counted == REQUESTS + 1
            assert damage(pullonce.store, {name: tar for each in stacks for name, tar in trees(each).items()}) == []
        finally:
            await asyncio.to_thread(pullonce.stop)


async def test_a_disk_that_is_full_to_the_last_byte_and_stays_so_for_a_while(registry: RegistryServer, tmp_path: Path) -> None:
    """The server is restarted on the full disk, again and again. It derived from the free room that it may store nothing.
    A real file system, since a tmpfs keeps no room for itself."""
    name = registry.push("full/real", "v", picture(stack(random.Random(20), 2, size=50_000)))
    with real_disk(tmp_path / "home", 120) as disk:
        pullonce = Deployment(disk).start()
        try:
            async with connect(pullonce.url, patience=LIMIT) as client:
                with no_room(disk):
                    pulls = ask(client, name)
                    await until(lambda: sum("make room" in line for line in pullonce.output) >= 3)
                    assert not any(pull.done() for pull in pulls)
                await asyncio.gather(*pulls)
                verdict = judge(await read_on(client))
            assert (verdict.unanswered, verdict.twice, verdict.failed, verdict.counted) == ([], [], [], REQUESTS)
            assert pullonce.run("ping").returncode == 0
        finally:
            await asyncio.to_thread(pullonce.stop)


async def test_up_begins_on_a_disk_that_is_nearly_full(registry: RegistryServer, tmp_path: Path) -> None:
    name = registry.push("full/nearly", "v", picture(stack(random.Random(30), 2, size=50_000)))
    with real_disk(tmp_path / "home", 120) as disk:
        pullonce, taken = Deployment(disk), ExitStack()
        try:
            taken.enter_context(no_room(disk, but=64 << 10))
            await asyncio.to_thread(pullonce.start)
            async with connect(pullonce.url, patience=LIMIT) as client:
                taken.enter_context(no_room(disk, name="rest"))
                pulls = ask(client, name)
                await until(lambda: any("make room" in line for line in pullonce.output))
                taken.close()
                await asyncio.gather(*pulls)
            assert pullonce.run("ping").returncode == 0
        finally:
            taken.close()
            await asyncio.to_thread(pullonce.stop)


async def test_up_that_finds_no_room_at_all_says_so(tmp_path: Path) -> None:
    with real_disk(tmp_path / "home", 120) as disk, no_room(disk):
        ended = await asyncio.to_thread(Deployment(disk).run, "up")
        assert ended.returncode == 1, ended.stderr
        assert f"no space left for {disk}" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("where", ["middle", "end"])
async def test_a_message_that_cannot_be_read_keeps_nobody_from_starting(
    registry: RegistryServer, tmp_path: Path, where: str
) -> None:
    """64 bytes of the event log are overwritten. The server counts the message and never delivers it: a coordinator that
    waits for the last one of those that were counted waits for ever."""
    reference = registry.push("unreadable/message", where, picture(stack(random.Random(where), 2)))
    server = NatsServer(tmp_path / "nats").start()
    try:
        for _ in range(2):
            with Crew(tmp_path / "home", server.url, coordinator=1, fetcher=1, unpacker=1) as crew:
                async with connect(crew.url, patience=LIMIT) as client:
                    await client.pull(reference, timeout=LIMIT)
                assert crew.unforeseen() == []
            server.stop()
            (block,) = (tmp_path / "nats").rglob("EVENTS/msgs/1.blk")
            held = bytearray(block.read_bytes())
            at = len(held) // 2 if where == "middle" else len(held) - 80
            held[at : at + 64] = bytes(64)
            block.write_bytes(held)
            server.start()
    finally:
        server.kill()


@pytest.mark.parametrize("where", [0.0, 0.45, 0.98])
async def test_a_follower_goes_by_what_its_consumer_still_counts(
    tmp_path: Path, where: float, caplog: pytest.LogCaptureFixture
) -> None:
    server = NatsServer(tmp_path).start()
    try:
        async with NatsPlace(server.url).connect() as bus:
            await bus.log.append_all([lost(number) for number in range(10)])
        server.stop()
        (block,) = tmp_path.rglob("EVENTS/msgs/1.blk")
        held = bytearray(block.read_bytes())
        at = int(len(held) * where)
        held[at : at + 32] = b"\xff" * 32
        block.write_bytes(held)
        server.start()
        async with NatsPlace(server.url).connect() as bus, Reader(bus) as reader:
            await reader.until(lambda r: r.idle == 1 or bool(r.read and r.read[-1].pending == 0))
            assert len(reader.read) in (0, 9)
        assert where != 0.45 or "1 messages of stream EVENTS before 11 cannot be read" in caplog.text
    finally:
        server.kill()


def ask(client: Client, reference: str) -> list[asyncio.Task[object]]:
    return [asyncio.create_task(client.pull(reference, timeout=LIMIT)) for _ in range(REQUESTS)]


async def until(true: Callable[[], bool]) -> None:
    """What a server writes into its log is announced by nothing else."""
    async with asyncio.timeout(LIMIT):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

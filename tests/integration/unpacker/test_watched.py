"""Workers that do not get on, and slots that nothing came of: said, ended, and given to whoever waits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.unpacker.work import workers
from services.unpacker.work.messages import WorkLimits
from services.unpacker.work.workers import Pool, WorkerProcess
from tests.support.chaos_disk import real_disk
from tests.support.layers import Image, entry, fails, tar, unpack_all, unpacker

LIMIT = 30
SOON = WorkLimits(patience=1.0)
GOOD = Image([tar(entry("f", content=b"f"))])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root freezes a file system")
async def test_a_disk_that_does_not_answer_fails_the_layer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says regularly that it is where it was. Not even a kill ends it before the disk answers again."""
    monkeypatch.setattr(workers, "_REAPED", 0.2)
    image = Image([tar(*(entry(f"f{n}", content=os.urandom(1000)) for n in range(2000)))])
    with real_disk(tmp_path / "disk", 30) as disk:
        async with unpacker(disk, workers=1, limits=SOON) as running:
            image.store(running.content)
            [process] = running.pool.processes()
            os.kill(process, signal.SIGSTOP)  # until it has its job, and the disk is frozen
            failing = asyncio.ensure_future(fails(running, image))
            while running.pool.idle.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            with frozen(disk):
                os.kill(process, signal.SIGCONT)
                async with asyncio.timeout(LIMIT):
                    fact = await failing
                assert (fact.code, fact.concerns) == ("unpack.stuck", "source")
                assert "PULLONCE_UNPACK_PATIENCE" in fact.message
            await unpack_all(running, image.orders())


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Nothing is written to a file system meanwhile: whoever tries waits."""
    subprocess.run(["fsfreeze", "--freeze", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(disk)], check=True)


async def test_a_worker_that_is_silent_is_ended(tmp_path: Path) -> None:
    """Frozen, it says nothing at all; and a blob of many chunks is under way."""
    image = Image([tar(entry("f", content=os.urandom(30_000_000)))])
    async with unpacker(tmp_path, workers=1, limits=SOON) as running:
        image.store(running.content)
        [process] = running.pool.processes()
        os.kill(process, signal.SIGSTOP)
        async with asyncio.timeout(LIMIT):
            fact = await fails(running, image)
        assert fact.code == "unpack.stuck"
        await unpack_all(running, image.orders())


async def test_a_worker_that_waits_for_bytes_is_not_stuck(tmp_path: Path) -> None:
    image = Image([tar(entry("f", content=os.urandom(1_000_000)))])
    async with unpacker(tmp_path, workers=1, limits=WorkLimits(patience=0.2)) as running:
        order = image.orders()[0]
        growing = running.content.ingest_path(order.blob.digest)
        growing.write_bytes(image.blobs[0][:500_000])
        unpacking = asyncio.ensure_future(unpack_all(running, [order]))
        while not running.pool.starving:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)  # five times as long as a worker may stand still that has what it needs
        assert not unpacking.done()
        growing.write_bytes(image.blobs[0])
        growing.rename(running.content.blob_path(order.blob.digest))
        running.parts.news.tell("blob", order.blob.digest)
        await unpacking


class Started:
    """Stands where processes are started, and lets a test say when one is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = asyncio.Event()
        self.fault: BaseException | None = None  # of the next one alone
        self._real = WorkerProcess.spawn
        monkeypatch.setattr(WorkerProcess, "spawn", self._spawn)

    async def _spawn(self) -> WorkerProcess:
        self.begun.set()
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return await self._real()


@pytest.mark.parametrize("withdrawn", [True, False])
async def test_a_slot_of_which_nothing_came_goes_to_the_next(withdrawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order is withdrawn, or the machine has no room, while its process is being started; another waits for the slot."""
    pool = Pool(1)
    started = Started(monkeypatch)  # the pool has no process yet: each is started when it is wanted
    if not withdrawn:
        started.fault = OSError(12, "no room")

    async def use() -> None:
        async with pool.worker():
            pass

    try:
        async with asyncio.timeout(LIMIT):
            first = asyncio.ensure_future(use())
            second = asyncio.ensure_future(use())
            await started.begun.wait()
            if withdrawn:
                first.cancel()
            while not first.done():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await second
            assert pool.idle.is_set()
            assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError | OSError)
    finally:
        await pool.close()


async def test_when_nothing_came_of_the_last_slot_nothing_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(1)
    Started(monkeypatch).fault = OSError(12, "no room")
    with pytest.raises(OSError, match="no room"):
        async with pool.worker():
            pass
    assert pool.idle.is_set()

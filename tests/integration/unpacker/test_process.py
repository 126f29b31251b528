"""`python -m services.unpacker` on a real nats-server: orders in, facts out, kills in between."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pullonce.bus.nats.bus import connect
from pullonce.bus.ports import Bus, Recorded
from pullonce.config import BusSettings
from pullonce.store.content import open_store
from pullonce.store.snapshots import Snapshots
from schemas.events import Event, LayerFailed, LayerUnpacked
from tests.support.layers import Image, entry, tar

REPOSITORY = Path(__file__).parents[3]
LAYERS = [tar(entry("./", "dir"), entry("f", content=os.urandom(1 << 20))), *(tar(entry(f"f{n}")) for n in range(5))]


@asynccontextmanager
async def service(url: str, home: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """An unpacker process; killed in the end, if it still runs."""
    environment = {**os.environ, "PULLONCE_NATS_URL": url, "PULLONCE_HOME": str(home), "PULLONCE_ACK_WAIT": "1"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.unpacker", env=environment, cwd=REPOSITORY)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Facts:
    """What the log says, as it comes."""

    def __init__(self, bus: Bus) -> None:
        self.events: list[Event] = []
        self._came = asyncio.Condition()
        self._task = asyncio.ensure_future(bus.log.follow(self._apply))
        self._waiting: list[asyncio.Event] = []

    def _apply(self, recorded: Recorded) -> None:
        if recorded.event is not None:
            self.events.append(recorded.event)
        for waiting in self._waiting:
            waiting.set()

    async def wait(self, number: int) -> list[Event]:
        """The first `number` facts."""
        came = asyncio.Event()
        self._waiting.append(came)
        while len(self.events) < number:
            came.clear()
            await came.wait()
        return self.events[:number]

    def stop(self) -> None:
        self._task.cancel()


async def test_orders_in_facts_out(nats_url: str, tmp_path: Path) -> None:
    image, broken = Image(LAYERS), Image([tar(entry("../out"))])
    root = tmp_path / "home" / "stores" / "default"
    content = open_store(root)
    image.store(content)
    broken.store(content)
    async with connect(BusSettings(nats_url, "test")) as bus, service(nats_url, tmp_path / "home") as process:
        facts = Facts(bus)
        for order in [*reversed(image.orders()), *broken.orders()]:
            await bus.orders.send(order)
        events = await facts.wait(len(LAYERS) + 1)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        facts.stop()
    assert {event.chain_id for event in events if isinstance(event, LayerUnpacked)} == set(image.chain)
    [failed] = [event for event in events if isinstance(event, LayerFailed)]
    assert (failed.code, failed.concerns, failed.chain_id) == ("layer.escapes", "source", broken.top)
    assert not list((root / "staging").iterdir())


async def test_killed_in_the_middle_another_carries_on(nats_url: str, tmp_path: Path) -> None:
    image = Image(LAYERS)
    root = tmp_path / "home" / "stores" / "default"
    content = open_store(root)
    async with connect(BusSettings(nats_url, "test")) as bus:
        facts = Facts(bus)
        for index in (1, 2):
            image.store(content, index)
        for order in image.orders():
            await bus.orders.send(order)
        for _ in range(2):
            async with service(nats_url, tmp_path / "home"):
                while not any((root / "staging").glob("unpack-*/*/snapshot/fs/f1")):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        image.store(content)
        async with service(nats_url, tmp_path / "home"):
            events = await facts.wait(len(LAYERS))
            while len(list((root / "staging").iterdir())) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        facts.stop()
    assert {event.chain_id for event in events if isinstance(event, LayerUnpacked)} == set(image.chain)
    assert [snapshot.chain_id for snapshot in Snapshots(root).chain(image.top)] == image.chain[::-1]

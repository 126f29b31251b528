"""A disk whose syncs take several times as long as an order is kept for its worker: that is no silence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from pullonce.client import connect
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_log, stack, trees
from tests.support.chaos_disk import SlowDisk, slow_disk
from tests.support.chaos_place import LIMIT, noise
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

RATE = 1_000_000
"""Bytes a second: to sync a blob of six millions takes three times `PULLONCE_ACK_WAIT`."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SlowDisk]:
    with slow_disk(tmp_path / "here" / "stores", 200) as found:
        yield found


async def deliveries(url: str) -> dict[str, int]:
    """Kind of worker → how often one was handed an order, as the server counts."""
    connection = await nats.connect(url)
    try:
        found = {}
        for kind in ("fetcher", "unpacker"):
            info = await connection.jetstream().consumer_info("ORDERS", f"{kind}-default")
            assert info.delivered is not None
            found[kind] = info.delivered.consumer_seq
        return found
    finally:
        await connection.close()


async def test_a_long_sync_is_no_silence(
    registry: RegistryServer, nats_server: NatsServer, disk: SlowDisk, tmp_path: Path
) -> None:
    """Every order is handed out once, although syncs take longer than it is kept; what is there can be pulled meanwhile."""
    tars = stack(random.Random("slow"), 1, size=6_000_000)
    slow = registry.push("slow/big", "latest", picture(tars))
    there = registry.push("slow/there", "latest", noise("there", 0.2))
    with Crew(tmp_path / "here", nats_server.url, coordinator=2, fetcher=2, unpacker=2) as crew:
        async with connect(crew.url, patience=LIMIT) as client:
            await client.pull(there, timeout=LIMIT)
            disk.slow_down(RATE)
            big = asyncio.ensure_future(client.pull(slow, timeout=LIMIT))
            others = 0
            while not big.done():
                await client.pull(there, timeout=LIMIT)
                others += not big.done()
                await asyncio.sleep(0.1)
            await big
            disk.slow_down(0)
        verdict = judge(await read_log(crew.url))
        handed_out = await deliveries(crew.url)
        assert crew.unforeseen() == []
    assert (verdict.unanswered, verdict.twice, verdict.failed, verdict.extra) == ([], [], [], 0)
    # Each request has its reference resolved; two images have one layer each, which is fetched, unpacked and listed.
    assert handed_out == {"fetcher": verdict.requests + 2 + 2, "unpacker": 2}
    assert others, "an image that is there waits for no sync"
    assert damage(crew.store, trees(tars)) == []

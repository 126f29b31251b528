"""A process stands still (SIGSTOP) for longer than every lease, and goes on as if nothing had happened: nothing is harmed.

Meanwhile others do its work, except for one thing: the lock of a blob that it was writing is still its own.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator

import nats
import pytest

from pullonce.client import connect
from pullonce.failpoints import STEPS
from schemas.subjects import ORDERS_STREAM
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.chaos_line import Line
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 60
WAITERS = 3
HOLDS_A_LOCK = {"body.middle", "blob.verified"}
"""Nobody else can bring the blob while a writer that is alive, if not well, has its growing file."""


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("home") / "here", bus_server.url, coordinator=2, fetcher=2, unpacker=2) as running:
        yield running


@pytest.mark.parametrize("step", STEPS)
async def test_who_stands_still_at_a_step_harms_nothing_later(crew: Crew, registry: RegistryServer, step: str) -> None:
    tars = stack(random.Random(step), 3)
    behind = registry.push(f"pause/{step.replace('.', '-')}", "latest", picture(tars))
    with Line(registry.host, rate=1_000_000) as line:
        crew.arm(step, "stop")
        async with connect(crew.url, patience=LIMIT) as client:
            start = await client.last_sequence() + 1
            pulls = [asyncio.ensure_future(client.pull(line.reference(behind), timeout=LIMIT)) for _ in range(WAITERS)]
            if step in HOLDS_A_LOCK:
                await eventually(lambda: stands_still(crew))
                await eventually(lambda: handed_out_anew(crew))
                assert not any(pull.done() for pull in pulls)
            else:
                await asyncio.gather(*pulls)
                await eventually(lambda: stands_still(crew))  # they were answered without it
            for member in crew.stopped():
                member.signal(signal.SIGCONT)
            await asyncio.gather(*pulls)
            await client.pull(line.reference(behind), timeout=LIMIT)
            verdict = judge(await read_on(client, start))
    assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
    assert verdict.counted == WAITERS + 1
    assert verdict.extra <= 1, "at most what it was about to do itself"
    assert damage(crew.store, trees(tars)) == []
    assert crew.unforeseen() == []


async def stands_still(crew: Crew) -> bool:
    return bool(crew.stopped())


async def handed_out_anew(crew: Crew) -> bool:
    """An order was kept for whoever stands still for as long as it is kept, and is somebody else's now."""
    bus = await nats.connect(crew.url)
    try:
        consumers = await bus.jetstream().consumers_info(ORDERS_STREAM)
    finally:
        await bus.close()
    return any(each.num_redelivered for each in consumers)

"""The bus as a cluster of three, every stream three times: its leaders are killed again and again while images are pulled."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from pullonce.bus.nats.bus import connect as connect_bus
from pullonce.bus.nats.setup import STREAMS
from pullonce.client import connect
from pullonce.config import BusSettings
from schemas.events import StoreOpened
from schemas.subjects import EVENTS_STREAM, ORDERS_STREAM
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.chaos_cluster import Cluster
from tests.support.chaos_line import Line
from tests.support.registry import RegistryServer

LIMIT = 100
ROUNDS = 3
PULLS = 25
"""A round."""


async def test_a_stream_that_somebody_made_with_one_copy_gets_the_others(tmp_path: Path) -> None:
    """A client that comes before the services makes the streams, and does not know how often they are to be kept."""
    with Cluster(tmp_path / "nats") as cluster:
        async with connect(cluster.url, patience=LIMIT):
            pass
        settings = BusSettings(url=cluster.url, name="a service", replicas=3)
        async with connect_bus(settings, patience=LIMIT) as bus:
            await bus.log.append(StoreOpened(incarnation="x"))
            await cluster.settled(*STREAMS)
            assert await bus.log.last_sequence() == 1


@pytest.mark.timeout(2 * LIMIT)
async def test_leaders_die_and_pulls_go_on(registry: RegistryServer, tmp_path: Path) -> None:
    dice = random.Random(7)
    stacks = [stack(dice, 3) for _ in range(ROUNDS)]
    behind = [registry.push("cluster", f"v{n}", picture(each)) for n, each in enumerate(stacks)]
    environ = {"PULLONCE_REPLICAS": "3", "PULLONCE_ACK_WAIT": "5"}
    with (
        Line(registry.host, rate=500_000) as line,
        Cluster(tmp_path / "nats") as cluster,
        Crew(tmp_path / "home", cluster.url, environ=environ, coordinator=2, fetcher=2, unpacker=2) as crew,
    ):
        async with connect(cluster.url, patience=LIMIT) as client:
            for number, reference in enumerate(map(line.reference, behind)):
                pulls = [asyncio.ensure_future(client.pull(reference, timeout=LIMIT)) for _ in range(PULLS)]
                await cluster.settled(*STREAMS)
                stream = (EVENTS_STREAM, ORDERS_STREAM)[number % 2]
                leader = cluster.servers[await cluster.leader(stream)]
                leader.kill()
                await cluster.leader(stream)  # the two others have found one
                leader.start()
                await asyncio.gather(*pulls)
            verdict = judge(await read_on(client))
        assert (verdict.requests, verdict.counted) == (ROUNDS * PULLS, ROUNDS * PULLS)
        assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
        assert damage(crew.store, {name: tar for each in stacks for name, tar in trees(each).items()}) == []
        assert crew.unforeseen() == []
        print(f"{verdict.executions.total()} executions, {verdict.extra} of them again")

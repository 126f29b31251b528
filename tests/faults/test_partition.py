"""A line between some services and the bus dies: the others do the work; when it heals, those are back by themselves."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from pullonce.client import connect
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.chaos_line import Line
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 60
EACH = {"coordinator": 1, "fetcher": 1, "unpacker": 1}


async def test_services_that_are_cut_off_harm_nobody_and_come_back(
    registry: RegistryServer, bus_server: NatsServer, tmp_path: Path
) -> None:
    dice = random.Random(11)
    first, second = stack(dice, 4), stack(dice, 3)
    names = [registry.push("partition", tag, picture(each)) for tag, each in (("one", first), ("two", second))]
    home = tmp_path / "home"
    with (
        Line(registry.host, rate=300_000) as slow,
        Line(bus_server.url.removeprefix("nats://")) as line,
        Crew(home, f"nats://{line.host}", mark="far-", **EACH) as far,
    ):
        async with connect(bus_server.url, patience=LIMIT) as client:
            start = await client.last_sequence() + 1
            with Crew(home, bus_server.url, mark="near-", **EACH) as near:
                pulls = [asyncio.ensure_future(client.pull(slow.reference(names[0]), timeout=LIMIT)) for _ in range(10)]
                await eventually(lambda: begun(near))
                line.die()  # nothing gets through, and nobody is told
                await asyncio.gather(*pulls)
                line.cut()  # connections break, and new ones lead nowhere
                await asyncio.gather(*(client.pull(slow.reference(names[0]), timeout=LIMIT) for _ in range(10)))
                assert near.unforeseen() == []
            asked = asyncio.ensure_future(client.pull(slow.reference(names[1]), timeout=LIMIT))
            line.heal()
            await asked  # nobody else is there to do it
            verdict = judge(await read_on(client, start))
        assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
        assert damage(far.store, trees(first) | trees(second)) == []
        assert all(member.deaths == [] for member in far.members), "none of them gave up"
        for member in far.members:
            said = [word for word in ("the bus is away", "the bus is back") if member.output.count(word) == 1]
            assert said == ["the bus is away", "the bus is back"], member.output[-2000:]
    print(f"{verdict.executions.total()} executions, {verdict.extra} of them again")


async def begun(crew: Crew) -> bool:
    return any(each.stat().st_size for each in (crew.store / "ingest").glob("*"))

"""Everything dies at random, again and again, while images are asked for: no request is lost, doubled, or answered wrongly.

Real processes, a real nats-server, a real registry behind a slow line. Each seed draws images, requests and deaths; it is in
the test's name. `PULLONCE_CHAOS_SEEDS=100:140` runs others than the usual ones.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from pullonce.client import Client, connect
from schemas.events import PullCompleted
from tests.support.chaos import Crew, Trouble
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.chaos_line import Line
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

FIRST, LAST = map(int, os.environ.get("PULLONCE_CHAOS_SEEDS", "1:20").split(":"))
REQUESTS = 105
"""A seed; one in 35 from a process of its own."""
SECONDS = 3.0
"""Of trouble a seed."""
LIMIT = 90


@dataclass
class World:
    """Everything, and what has been counted so far."""

    crew: Crew
    server: NatsServer
    registry: RegistryServer
    line: Line
    hands: Executor
    """One thread that makes all trouble: a server dies with the thread that started it."""
    totals: dict[str, int] = field(default_factory=dict)

    def count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.totals[name] = self.totals.get(name, 0) + number


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("chaos")
    registry = RegistryServer(place / "registry").start()
    server = NatsServer(place / "nats").start()
    with (
        ThreadPoolExecutor(1) as hands,
        Line(registry.host, rate=1_500_000) as line,
        Crew(place / "home", server.url, coordinator=3, fetcher=2, unpacker=2) as crew,
    ):
        made = World(crew, server, registry, line, hands)
        yield made
        print("\nchaos:", ", ".join(f"{number} {name}" for name, number in made.totals.items()))
    server.kill()
    registry.stop()


@pytest.mark.timeout(LIMIT * 2)
@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
async def test_every_request_gets_one_right_answer(world: World, seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    base = stack(dice, 2)
    stacks = [base + stack(dice, dice.randint(1, 3)) for _ in range(4)]
    names = [world.registry.push(f"chaos/{seed}", f"image-{n}", picture(each)) for n, each in enumerate(stacks)]
    references = [world.line.reference(each) for each in names]
    before = world.line.brought
    trouble = Trouble(world.crew, world.server, random.Random(seed))
    try:
        async with connect(world.crew.url, patience=30) as client:
            start = await client.last_sequence() + 1
            making = asyncio.wrap_future(world.hands.submit(trouble.make, SECONDS))
            asking = [asyncio.create_task(ask(world, client, dice, references)) for _ in range(REQUESTS)]
            await making
            async with asyncio.timeout(LIMIT):
                answers = await asyncio.gather(*asking)
            verdict = judge(await read_on(client, start))
    finally:
        print("\n".join(trouble.deeds))
    assert len(answers) == REQUESTS <= verdict.requests
    assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
    assert REQUESTS <= verdict.counted <= verdict.requests, "an ending says how many requests it answers"
    assert damage(world.crew.store, {name: tar for each in stacks for name, tar in trees(each).items()}) == []
    assert world.crew.unforeseen() == []
    sizes = {digest: len(blob) for each in stacks for digest, blob in picture(each).blobs.items()}
    world.count(
        requests=verdict.requests,
        deeds=len(trouble.deeds),
        executions=len(verdict.executions),
        extra=verdict.extra,
        bytes=sum(sizes.values()),
        again=max(0, world.line.brought - before - sum(sizes.values())),
    )


async def ask(world: World, client: Client, dice: random.Random, references: list[str]) -> PullCompleted | None:
    """One request at some moment, in this process or another."""
    reference, moment, elsewhere = dice.choice(references), dice.uniform(0, SECONDS), dice.random() < 1 / 35
    await asyncio.sleep(moment)
    if elsewhere:
        await asyncio.to_thread(pull_elsewhere, world, reference)
        return None
    return await client.pull(reference, timeout=LIMIT)


def pull_elsewhere(world: World, reference: str) -> None:
    """The command; it gives up (exit code 3) where it finds everybody dead, and its user tries again."""
    command = [sys.executable, "-m", "pullonce", "pull", reference, "--timeout", str(LIMIT)]
    while True:
        done = subprocess.run(command, env=world.crew.environ, capture_output=True, text=True, timeout=LIMIT, check=False)
        if done.returncode != 3:
            break
    assert done.returncode == 0, done.stderr

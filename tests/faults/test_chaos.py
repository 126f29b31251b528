"""Everything dies at random, again and again, while images are asked for: no request is lost, doubled, or answered wrongly.

Real processes, a real nats-server, a real registry behind a slow line. Each seed draws images, requests and deaths; it is in
the test's name. `PULLONCE_CHAOS_SEEDS=100:140` runs others than the usual ones. What the trouble cost, in work done and bytes
brought again, is a property of each test, and summed up at the end of the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pullonce.client import Client, connect
from tests.integration.ledger.test_service import rows_from, rows_of, staged_log, until_folded
from tests.support.buses import NatsPlace
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
LEDGER = {"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}


@dataclass
class World:
    """Everything."""

    crew: Crew
    server: NatsServer
    registry: RegistryServer
    line: Line
    hands: Executor
    """One thread that makes all trouble: a server dies with the thread that started it."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("chaos")
    registry = RegistryServer(place / "registry").start()
    server = NatsServer(place / "nats").start()
    with (
        ThreadPoolExecutor(1) as hands,
        Line(registry.host, rate=1_500_000) as line,
        Crew(place / "home", server.url, environ=LEDGER, coordinator=3, fetcher=2, unpacker=2, ledger=1) as crew,
    ):
        yield World(crew, server, registry, line, hands)
    server.kill()
    registry.stop()


@pytest.mark.timeout(LIMIT * 2)
@pytest.mark.parametrize("seed", range(FIRST, LAST + 1))
async def test_every_request_gets_one_right_answer(
    world: World, seed: int, record_property: Callable[[str, object], None]
) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    base = stack(dice, 2)
    stacks = [base + stack(dice, dice.randint(1, 3)) for _ in range(4)]
    names = [world.registry.push(f"chaos/{seed}", f"image-{n}", picture(each)) for n, each in enumerate(stacks)]
    images = {world.line.reference(name): picture(each) for name, each in zip(names, stacks, strict=True)}
    references = list(images)
    before = world.line.brought
    trouble = Trouble(world.crew, world.server, random.Random(seed))
    try:
        async with connect(world.crew.url, patience=30, supervised=True) as client:
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
    wrong = [reference for reference, digest in answers if digest != images[reference].digest]
    assert wrong == [], "each was answered by another image"
    assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
    assert REQUESTS <= verdict.counted <= verdict.requests, "an ending says how many requests it answers"
    assert damage(world.crew.store, {name: tar for each in stacks for name, tar in trees(each).items()}) == []
    assert world.crew.unforeseen() == []
    sizes = {digest: len(blob) for each in images.values() for digest, blob in each.blobs.items()}
    cost = {
        "requests": verdict.requests,
        "deeds": len(trouble.deeds),
        "executions": len(verdict.executions),
        "extra executions": verdict.extra,
        "orders that found it done": verdict.found,
        "bytes": sum(sizes.values()),
        "bytes again": max(0, world.line.brought - before - sum(sizes.values())),
    }
    for name, number in cost.items():
        record_property(name, number)
    assert verdict.extra == 0, "what was verified is not done again"
    assert cost["bytes again"] <= cost["bytes"], "what breaks off is not begun anew without end"


@pytest.mark.timeout(LIMIT)
async def test_the_ledger_that_was_killed_with_them_has_every_event_once(world: World, tmp_path: Path) -> None:
    async with NatsPlace(world.crew.url).connect() as bus:
        await until_folded(bus)
        (ledger,) = world.crew.named("ledger")
        assert await asyncio.to_thread(ledger.end) == 0
        staged = await staged_log(bus)
    kept = rows_of(world.crew.home / "ledger" / "ledger.duckdb")
    assert [name for name, rows in rows_from(tmp_path / "again" / "ledger.duckdb", staged).items() if rows != kept[name]] == []
    assert len(kept["events"]) == len(staged) and len(ledger.deaths) > 1, "it was never killed"


async def ask(world: World, client: Client, dice: random.Random, references: list[str]) -> tuple[str, str]:
    """One request at some moment, in this process or another. Returns what was asked for, and the digest of the answer."""
    reference, moment, elsewhere = dice.choice(references), dice.uniform(0, SECONDS), dice.random() < 1 / 35
    await asyncio.sleep(moment)
    if elsewhere:
        return reference, await asyncio.to_thread(pull_elsewhere, world, reference)
    return reference, (await client.pull(reference, timeout=LIMIT)).digest


def pull_elsewhere(world: World, reference: str) -> str:
    """The command; it gives up (exit code 3) where it finds everybody dead, and its user tries again."""
    command = [sys.executable, "-m", "pullonce", "pull", reference, "--json", "--timeout", str(LIMIT)]
    while True:
        done = subprocess.run(command, env=world.crew.environ, capture_output=True, text=True, timeout=LIMIT, check=False)
        if done.returncode != 3:
            break
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["digest"])

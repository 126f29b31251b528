"""Pulls, `rm` and `gc` race at random for a while, collectors are killed: no pull ends with anything missing.

Real processes, a real nats-server, a real registry. Images share layers, so that what one of them lets go another one needs.
`PULLONCE_COLLECT_SECONDS` says for how long; a minute in CI. `PULLONCE_COLLECT_SEED`
repeats what was drawn, though not when it met what.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from pullonce.bus.nats.bus import connect as connect_bus
from pullonce.bus.ports import Bus
from pullonce.care.choice import Retention
from pullonce.care.collect import Collector
from pullonce.care.flights import ask
from pullonce.care.listing import ImageList, Kept, NotListed
from pullonce.care.needs import Needs
from pullonce.care.things import Things
from pullonce.client import Client, connect
from pullonce.config import BusSettings
from pullonce.store.content import ContentStore
from schemas.events import PullCompleted
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_on, stack
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

SECONDS = float(os.environ.get("PULLONCE_COLLECT_SECONDS") or (60 if os.environ.get("CI") == "true" else 15))
PULLERS, REMOVERS, COLLECTORS = 6, 2, 2
LIMIT = 60


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    home = tmp_path_factory.mktemp("collecting") / "home"
    with Crew(home, bus_server.url, coordinator=2, fetcher=2, unpacker=1) as running:
        yield running


@dataclass
class Race:
    """Everybody who takes part, and what they saw."""

    crew: Crew
    references: list[str]
    dice: random.Random
    end: float
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    removals: dict[str, list[int]] = field(default_factory=dict)
    """Reference → log positions at which somebody was told that no pull of it is in flight, and took it off the list."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by a removal until it is written down, and by a look at what a pull has left."""

    def __post_init__(self) -> None:
        self.content = ContentStore(self.crew.store)
        self.things = Things(self.content)

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    async def pull(self, client: Client) -> None:
        while not self.over:
            reference, unpack = self.dice.choice(self.references), self.dice.random() < 0.8
            completed = await client.pull(reference, unpack=unpack, timeout=LIMIT)
            async with self.lock:
                missing = await asyncio.to_thread(self.missing, reference, completed)
                allowed = any(position >= completed.covers for position in self.removals.get(reference, ()))
            self.counts["pulls, removed again at once" if missing and allowed else "pulls"] += 1
            self.counts["blobs fetched"] += completed.sharing.fetched
            self.counts["blobs reused"] += completed.sharing.reused
            if missing and not allowed:
                self.wrong.append(f"{reference} ended at {completed.covers} without {missing}")
            await asyncio.sleep(self.dice.uniform(0.0, 0.2))

    def missing(self, reference: str, completed: PullCompleted) -> list[str]:
        """What a pull that has just ended has not left behind."""
        with self.content.images.hold():
            listed = [each for each in self.content.images.named(reference) if each.manifest.digest == completed.manifest]
            if not listed:
                return ["its place on the list"]
            needed = [thing for each in listed for thing in Needs(self.content).of(each)]
            missing = [f"{thing.kind} {thing.name}" for thing in needed if not self.things.path(thing).exists()]
            return missing + ["its snapshots"] * bool(completed.chain_id and completed.chain_id not in listed[0].chain_ids)

    async def remove(self, bus: Bus) -> None:
        image_list = ImageList(self.content)
        while not self.over:
            reference = self.dice.choice(self.references)
            air = await ask(bus.signals, "default")
            await asyncio.sleep(self.dice.choice((0.0, 0.0, 0.1)))  # what it was told grows old
            async with self.lock:
                try:
                    await asyncio.to_thread(image_list.remove, reference, "", air)
                    self.removals.setdefault(reference, []).append(air.position)
                    self.counts["removals"] += 1
                except Kept:
                    self.counts["removals refused"] += 1
                except NotListed:
                    pass
            await asyncio.sleep(self.dice.uniform(0.0, 0.1))

    async def collect(self, bus: Bus) -> None:
        while not self.over:
            report = await Collector(bus, self.content, "default", older=3600).run(Retention(), dry=False)
            self.counts["collections"] += 1
            self.counts["collected"] += report.blobs + report.layers
            self.counts["left since in use"] += report.busy

    async def kill_collectors(self) -> None:
        """Some die, and some stand still while others claim over what they were about to remove."""
        while not self.over:
            collecting = await asyncio.to_thread(
                subprocess.Popen, [sys.executable, "-m", "pullonce", "gc", "--json"], env=self.crew.environ,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            await asyncio.sleep(self.dice.uniform(0.3, 0.9))
            if self.dice.random() < 0.5 and collecting.poll() is None:
                collecting.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.dice.uniform(0.5, 2.0))
                collecting.send_signal(signal.SIGCONT)
                self.counts["collectors frozen"] += 1
                await asyncio.to_thread(collecting.wait)
                continue
            collecting.kill()
            self.counts["collectors killed" if await asyncio.to_thread(collecting.wait) else "collections"] += 1


@pytest.mark.timeout(SECONDS + 2 * LIMIT)
async def test_no_pull_ends_with_anything_missing(crew: Crew, registry: RegistryServer) -> None:
    seed = int(os.environ.get("PULLONCE_COLLECT_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"seed {seed}")
    dice = random.Random(seed)
    base = stack(dice, 2, size=60_000)
    stacks = [base + stack(dice, n % 3, size=60_000) for n in range(5)] + [stack(dice, 2, size=60_000)]
    references = [registry.push(f"collect/{n}", "1", picture(each)) for n, each in enumerate(stacks)]
    race = Race(crew, references, dice, time.monotonic() + SECONDS)
    async with AsyncExitStack() as opened:
        client = await opened.enter_async_context(connect(crew.url, patience=LIMIT))
        start = await client.last_sequence() + 1
        settings = BusSettings.from_env("test", crew.environ)
        buses = [await opened.enter_async_context(connect_bus(settings)) for _ in range(REMOVERS + COLLECTORS)]
        async with asyncio.TaskGroup() as tasks:
            for _ in range(PULLERS):
                tasks.create_task(race.pull(client))
            for number, bus in enumerate(buses):
                tasks.create_task(race.remove(bus) if number < REMOVERS else race.collect(bus))
            tasks.create_task(race.kill_collectors())
        verdict = judge(await read_on(client, start))
    print(f"\ncollecting: {', '.join(f'{number} {name}' for name, number in sorted(race.counts.items()))}")
    assert race.wrong == []
    assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
    assert damage(crew.store, {}) == []
    assert crew.unforeseen() == []
    assert race.counts["collected"] and race.counts["removals"], "there was no race"

"""Bundles die at every step, and are made and taken apart while collectors take away what they can: none loses a file."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pullonce.bundle.bundles import Bundles
from pullonce.bundle.record import Bundle
from pullonce.bundle.rootfs import Rootfs
from pullonce.bus.nats.bus import connect as connect_bus
from pullonce.care.choice import Retention
from pullonce.care.collect import Collector
from pullonce.cli.main import main
from pullonce.client import connect
from pullonce.config import BusSettings
from pullonce.failpoints import BUNDLE_STEPS
from pullonce.store.content import ContentStore
from pullonce.store.holds import Holds
from pullonce.store.images import ImageRecord
from pullonce.store.mounting import unmount
from pullonce.store.snapshots import SnapshotMissing
from tests.support.chaos import Crew
from tests.support.images import Image, image, layer, tar_of
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer
from tests.support.trees import differences, read_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
SECONDS = float(os.environ.get("PULLONCE_BUNDLE_SECONDS") or 6)
BUNDLERS = 3
LIMIT = 60
FILES = {"etc/passwd": b"root:x:0:0::/:\n", "a/b/c": b"deep", "big": bytes(range(256)) * 40}


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("bundles") / "home", bus_server.url, coordinator=1, fetcher=1, unpacker=1) as running:
        yield running


class Household:
    """A home that a crew serves, and the commands of bundles in it."""

    def __init__(self, crew: Crew, registry: RegistryServer) -> None:
        self.crew = crew
        self.registry = registry
        self.content = ContentStore(crew.store)
        self.holds = Holds(crew.store)

    def push(self, name: str, *tops: bytes) -> str:
        """An image of a common layer and some of its own."""
        tars = [tar_of(FILES), *(tar_of({f"own/{index}": top, "a/b/c": top}) for index, top in enumerate(tops))]
        return self.registry.push(f"bundles/{name}", "1", made_of(tars))

    def say(self, *words: str) -> tuple[int, str]:
        """Carry out a command; its exit code and what it complains of."""
        told = io.StringIO()
        with redirect_stdout(io.StringIO()), redirect_stderr(told):
            code = main([words[0], "--home", str(self.crew.home), *words[1:]])
        return code, told.getvalue()

    def die(self, step: str, *words: str) -> None:
        """Carry out a command that is killed at a step."""
        self.crew.arm(step)
        command = [sys.executable, "-m", "pullonce", *words]
        done = subprocess.run(command, env=self.crew.environ, capture_output=True, timeout=LIMIT, check=False)
        assert done.returncode == -signal.SIGKILL, (step, done)

    def collect(self) -> None:
        """Take everything off the list and remove what nobody needs."""

        async def run() -> None:
            async with connect_bus(BusSettings.from_env("test", self.crew.environ)) as bus:
                with self.content.images.hold():
                    self.content.images.remove(self.content.images.all())
                await Collector(bus, self.content, "default", older=3600).run(Retention(), dry=False)

        asyncio.run(run())

    def layers(self) -> int:
        return len(list((self.crew.store / "snapshots").iterdir()))


def made_of(tars: list[bytes]) -> Image:
    return image([layer(each) for each in tars], process={"Cmd": ["/bin/true"]})


@pytest.fixture
def house(crew: Crew, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> Household:
    monkeypatch.setenv("PULLONCE_NATS_URL", crew.url)
    return Household(crew, registry)


@pytest.mark.parametrize("step", BUNDLE_STEPS)
def test_a_bundle_survives_a_death_at(house: Household, tmp_path: Path, step: str) -> None:
    """What was held stays, whatever is collected; making it again finishes it, and so does taking it apart."""
    reference, place = house.push(step, step.encode()), tmp_path / "bundle"
    for finish in ("bundle", "unbundle"):
        if step.startswith("unbundle"):
            assert house.say("bundle", "-q", reference, str(place)) == (0, "")
            house.die(step, "unbundle", str(place))
        else:
            house.die(step, "bundle", "-q", reference, str(place))
        held = len(list(house.holds.all()))
        house.collect()
        assert house.layers() == (2 if held else 0)
        if finish == "bundle":
            made_again(house, reference, place)
            assert (place / "rootfs" / "a" / "b" / "c").read_bytes() == step.encode()
            assert (place / "rootfs" / "big").read_bytes() == FILES["big"]
        code, told = house.say("unbundle", str(place))
        assert code == 0 or "is no bundle" in told
        assert (list(house.holds.all()), Rootfs(place).is_mounted) == ([], False)
        assert not place.exists() or not list(place.iterdir())
        house.collect()
        assert house.layers() == 0


def made_again(house: Household, reference: str, place: Path) -> None:
    code, told = house.say("bundle", "-q", reference, str(place))
    if code:
        assert "is a bundle of" in told, "it was whole already"
        assert house.say("bundle", "--remount", str(place)) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", ["bundle.held", "bundle.mounted"])
def test_one_that_is_interrupted_is_undone(
    house: Household, tmp_path: Path, step: str, number: signal.Signals, code: int
) -> None:
    reference = house.push("interrupted", b"top")
    house.crew.arm(step, "stop")
    command = [sys.executable, "-m", "pullonce", "bundle", "-q", reference, str(tmp_path / "bundle")]
    running = subprocess.Popen(command, env=house.crew.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status = os.waitpid(running.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status) and len(list(house.holds.all())) == 1
    for each in (number, signal.SIGCONT):
        running.send_signal(each)
    running.communicate(timeout=LIMIT)
    assert (running.returncode, list(house.holds.all()), list(tmp_path.iterdir())) == (code, [], [])


def test_lost_layers_of_a_bundle_come_again_though_its_tag_moved(house: Household, tmp_path: Path) -> None:
    reference, place = house.push("moved", b"before"), tmp_path / "bundle"
    assert house.say("bundle", "-q", reference, str(place)) == (0, "")
    (place / "rootfs" / "mine").write_text("kept")
    unmount(place / "rootfs")
    assert [house.holds.drop(hold.holder, hold.name) for hold in house.holds.all("bundles")] == [True]
    house.collect()
    assert house.layers() == 0
    assert house.push("moved", b"after") == reference
    assert house.say("bundle", "--remount", "--policy", "never", str(place))[0] == 1
    assert house.say("bundle", "--remount", "-q", str(place)) == (0, "")
    assert ((place / "rootfs" / "own" / "0").read_bytes(), (place / "rootfs" / "mine").read_text()) == (b"before", "kept")
    assert house.say("unbundle", str(place)) == (0, "")
    house.collect()
    assert house.layers() == 0


# -- beside collectors -----------------------------------------------------------------------------------------------------


class Race:
    """Bundles that come and go, of images that are taken off the list all the time."""

    def __init__(self, house: Household, references: list[str], place: Path) -> None:
        self.house = house
        self.references = references
        self.place = place
        self.bundles = Bundles(house.content)
        self.dice = random.Random(11)
        self.end = time.monotonic() + SECONDS
        self.counts: Counter[str] = Counter()
        self.expected: dict[str, Any] = {}
        self.wrong: list[str] = []

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    async def bundle(self, number: int) -> None:
        async with connect(self.house.crew.url, patience=LIMIT) as client:
            while not self.over:
                reference = self.dice.choice(self.references)
                await client.pull(reference, timeout=LIMIT, policy="if-not-present")
                listed = self.house.content.images.named(reference)
                if not listed:
                    self.counts["removed before it was looked for"] += 1
                    continue
                await asyncio.to_thread(self.live, listed[0], self.place / str(number))

    def live(self, record: ImageRecord, place: Path) -> None:
        """One bundle: made, looked at for a while, taken apart."""
        wanted = Bundle(
            directory=str(place), store=str(self.house.content.root), reference=record.reference, platform=record.platform,
            digest=record.digest, image_id=record.image_id, chain_id=record.chain_ids[-1],
        )  # fmt: skip
        try:
            self.bundles.make(wanted, lambda rootfs: {"mounts": []})
        except SnapshotMissing:
            self.counts["removed before it was held"] += 1
            return
        for _ in range(self.dice.randrange(1, 4)):
            found = read_tree(place / "rootfs")
            lost = differences(found, self.expected.setdefault(record.reference, found))
            self.wrong += [f"{record.reference}: {each}" for each in lost]
            time.sleep(self.dice.uniform(0, 0.05))
        self.bundles.take_apart(place, force=False)
        self.counts["bundles"] += 1

    async def collect(self) -> None:
        async with connect_bus(BusSettings.from_env("test", self.house.crew.environ)) as bus:
            while not self.over:
                await asyncio.to_thread(self.take_off)
                report = await Collector(bus, self.house.content, "default", older=3600).run(Retention(), dry=False)
                self.counts["layers collected"] += report.layers
                self.counts["layers kept"] += sum(report.held.values())
                await asyncio.sleep(self.dice.uniform(0, 0.1))

    def take_off(self) -> None:
        with self.house.content.images.hold():
            self.house.content.images.remove(self.house.content.images.all())


@pytest.mark.timeout(SECONDS + 2 * LIMIT)
async def test_nothing_that_is_bundled_loses_a_file(house: Household, tmp_path: Path) -> None:
    references = [
        house.push(f"race{number}", *(f"{number}.{depth}".encode() for depth in range(number + 1))) for number in range(4)
    ]
    race = Race(house, references, tmp_path)
    async with asyncio.TaskGroup() as tasks:
        for number in range(BUNDLERS):
            tasks.create_task(race.bundle(number))
        tasks.create_task(race.collect())
    print(f"\nbundles: {', '.join(f'{number} {name}' for name, number in sorted(race.counts.items()))}")
    assert race.wrong == []
    assert race.counts["bundles"] and race.counts["layers collected"] and race.counts["layers kept"], "there was no race"
    assert list(house.holds.all()) == [] and list(tmp_path.iterdir()) == []

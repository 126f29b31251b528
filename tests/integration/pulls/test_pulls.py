"""The main job, counted: however often an image is asked for, it costs one pull.

Real nats-server, real docker-registry with its access log, real services as processes, real client processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import nats
import pytest

from pullonce.bus.ports import Recorded
from pullonce.client import Client, connect
from pullonce.errors import PullFailed as PullFailedError
from schemas.events import (
    BlobFetched,
    Event,
    LayerUnpacked,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullRequested,
)
from tests.support.deployment import Deployment, kinds
from tests.support.gate import Gate
from tests.support.images import Image, image, index, layer, tar_of
from tests.support.registry import RegistryServer

TIMEOUT = 60


@dataclass
class Place:
    """A registry and a running pullonce."""

    registry: RegistryServer
    pullonce: Deployment


@pytest.fixture(params=[(1, 1, 1), (3, 2, 2)], ids=["one of each", "3 coordinators, 2 fetchers, 2 unpackers"])
def place(request: pytest.FixtureRequest, registry: RegistryServer, tmp_path: Path) -> Iterator[Place]:
    coordinators, fetchers, unpackers = request.param
    deployment = Deployment(tmp_path / "home", coordinators=coordinators, fetchers=fetchers, unpackers=unpackers)
    deployment.start()
    yield Place(registry, deployment)
    deployment.stop()


@pytest.fixture(scope="module")
def lone(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One of each service, shared by tests that use images of their own."""
    deployment = Deployment(tmp_path_factory.mktemp("home")).start()
    yield Place(registry, deployment)
    deployment.stop()


def noise(seed: int, size: int = 200_000) -> bytes:
    return random.Random(seed).randbytes(size)


def picture(*seeds: int) -> Image:
    """An image with one layer a seed; equal seeds make equal layers."""
    return image(layer(tar_of({f"file-{seed}": noise(seed), f"dir-{seed}/text": b"hello"})) for seed in seeds)


def one_pull(layers: int) -> dict[str, int]:
    """What the registry sees of one pull of a single-manifest image: one HEAD, one GET a manifest, one GET a blob."""
    return {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 1 + layers}


def worked(events: list[Event]) -> Counter[str]:
    """How often each blob was transferred and each layer unpacked, by its digest or ChainID."""
    blobs = [e.digest for e in events if isinstance(e, BlobFetched) and not e.reused]
    return Counter(blobs + [e.chain_id for e in events if isinstance(e, LayerUnpacked) and not e.reused])


E = TypeVar("E", bound=Event)


async def happened(client: Client, kind: type[E], times: int, after: int = 0, reference: str = "") -> E:
    """Return when the log holds this many events of a kind behind a position; the last of them."""
    found: list[E] = []
    enough = asyncio.Event()

    def count(recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, kind) and reference in ("", getattr(event, "reference", "")):
            found.append(event)
        if len(found) >= times:
            enough.set()

    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(client.watch(count, start=after + 1))
        await enough.wait()
        watch.cancel()
    return found[-1]


async def requested(client: Client, reference: str, times: int) -> None:
    """Return when the log holds this many requests for an image."""
    await happened(client, PullRequested, times, reference=reference)


async def test_twenty_pulls_from_twenty_processes_cost_one(place: Place) -> None:
    behind = place.registry.push("twenty/processes", "latest", picture(1, 2, 3))
    with Gate(place.registry.host) as gate:
        reference = gate.reference(behind)
        pulls = [place.pullonce.start_pull(reference, "--json", "--timeout", str(TIMEOUT)) for _ in range(20)]
        async with connect(place.pullonce.url) as client:
            await requested(client, reference, 20)
        gate.open()
        endings = [json.loads(said(pull)) for pull in pulls]
        assert place.registry.counts() == one_pull(3)
    assert {(ending["opened"], ending["sharing"]["requests"]) for ending in endings} == {(endings[0]["opened"], 20)}
    events = await place.pullonce.events()
    assert kinds(events)["pull.completed"] == 1
    assert set(worked(events).values()) == {1} and len(worked(events)) == 6


def said(pull: subprocess.Popen[str]) -> str:
    """What a client process printed, which must have ended well."""
    out, err = pull.communicate(timeout=TIMEOUT)
    assert pull.returncode == 0, err
    return out


async def test_two_hundred_pulls_from_one_process_cost_one(place: Place) -> None:
    behind = place.registry.push("twohundred/tasks", "latest", picture(4, 5))
    with Gate(place.registry.host) as gate:
        reference = gate.reference(behind)
        async with connect(place.pullonce.url) as client, asyncio.TaskGroup() as tasks:
            pulls = [tasks.create_task(client.pull(reference, timeout=TIMEOUT)) for _ in range(200)]
            await requested(client, reference, 200)
            gate.open()
            endings = await asyncio.gather(*pulls)
        assert place.registry.counts() == one_pull(2)
    assert {(ending.opened, ending.sharing.requests) for ending in endings} == {(endings[0].opened, 200)}
    events = await place.pullonce.events()
    assert kinds(events)["pull.completed"] == 1
    assert set(worked(events).values()) == {1} and len(worked(events)) == 4


async def test_a_thousand_waiters_of_one_process_and_some_of_others_are_answered_by_one_event(lone: Place) -> None:
    behind = lone.registry.push("thousand/waiters", "latest", picture(40))
    with Gate(lone.registry.host) as gate:
        reference = gate.reference(behind)
        async with connect(lone.pullonce.url) as client, asyncio.TaskGroup() as tasks:
            others = [lone.pullonce.start_pull(reference, "--json", "--timeout", str(TIMEOUT)) for _ in range(5)]
            pulls = [tasks.create_task(client.pull(reference, timeout=TIMEOUT)) for _ in range(1000)]
            await requested(client, reference, 1005)
            gate.open()
            endings = await asyncio.gather(*pulls)
        theirs = [json.loads(await asyncio.to_thread(said, other)) for other in others]
    assert {ending.opened for ending in endings} == {ending["opened"] for ending in theirs} == {endings[0].opened}
    assert endings[0].sharing.requests == 1005
    assert lone.registry.counts() == one_pull(1)


async def test_images_that_share_layers_share_the_work(place: Place) -> None:
    first = place.registry.push("shared/one", "latest", picture(6, 7, 8))
    second = place.registry.push("shared/two", "latest", picture(6, 7, 9))
    async with connect(place.pullonce.url) as client:
        one, two = await asyncio.gather(client.pull(first, timeout=TIMEOUT), client.pull(second, timeout=TIMEOUT))
    assert place.registry.counts() == {"HEAD manifests": 2, "GET manifests": 2, "GET blobs": 2 + 4}
    events = await place.pullonce.events()
    assert set(worked(events).values()) == {1} and len(worked(events)) == 8
    assert one.sharing.fetched + two.sharing.fetched == 4
    assert one.sharing.waited + two.sharing.waited + one.sharing.reused + two.sharing.reused == 2
    assert one.chain_id != two.chain_id


async def test_who_leaves_leaves_alone_and_the_last_one_stops_the_work(lone: Place) -> None:
    behind = lone.registry.push("last/leaves", "latest", picture(30, 31))
    with Gate(lone.registry.host) as gate:
        reference = gate.reference(behind)
        async with connect(lone.pullonce.url) as client:
            before = await client.last_sequence()
            pulls = [asyncio.create_task(client.pull(reference)) for _ in range(3)]
            await requested(client, reference, 3)
            await asyncio.to_thread(gate.holding.wait, TIMEOUT)
            for pull in pulls[:2]:
                pull.cancel()
            await happened(client, PullCancelled, 2, before)
            assert not pulls[2].done()
            pulls[2].cancel()
            failed = await happened(client, PullFailed, 1, before)
            assert failed.code == "pull.cancelled"
            gate.open()
            await asyncio.gather(*pulls, return_exceptions=True)
            again = await client.pull(reference, timeout=TIMEOUT)
    assert again.sharing.unpacked == 2
    assert lone.registry.counts()["GET manifests"] == 1, "what was there before they left is used"


async def test_one_after_the_end_asks_only_what_the_tag_is(lone: Place) -> None:
    reference = lone.registry.push("after/end", "latest", picture(10))
    async with connect(lone.pullonce.url) as client:
        first = await client.pull(reference, timeout=TIMEOUT)
        lone.registry.forget()
        second = await client.pull(reference, timeout=TIMEOUT)
        assert lone.registry.counts() == {"HEAD manifests": 1}
        lone.registry.forget()
        third = await client.pull(reference, timeout=TIMEOUT, policy="if-not-present")
        assert lone.registry.counts() == {}
    assert first.image_id == second.image_id == third.image_id
    assert (second.sharing.reused, second.sharing.fetched, second.sharing.unpack_reused) == (1, 0, 1)


async def test_joining_at_any_moment_is_answered_once(lone: Place) -> None:
    """Requests that arrive all through several flights, and while endings are being published: each is answered, once."""
    reference = lone.registry.push("any/moment", "latest", picture(11, 12))
    async with connect(lone.pullonce.url) as client:
        before = await client.last_sequence()

        async def ask(number: int) -> PullCompleted:
            await asyncio.sleep(number * 0.003)
            return await client.pull(reference, timeout=TIMEOUT)

        endings = await asyncio.gather(*(ask(number) for number in range(150)))
    events = (await lone.pullonce.events())[before:]
    completed = [event for event in events if isinstance(event, PullCompleted)]
    assert len({ending.opened for ending in completed}) == len(completed), "a flight ended twice"
    assert sum(ending.sharing.requests for ending in completed) == 150
    assert {ending.opened for ending in endings} == {ending.opened for ending in completed}
    assert set(worked(events).values()) == {1}


async def test_a_tag_that_moved_is_seen_and_the_rest_is_reused(lone: Place) -> None:
    reference = lone.registry.push("moving/tag", "latest", picture(13, 14))
    async with connect(lone.pullonce.url) as client:
        first = await client.pull(reference, timeout=TIMEOUT)
        lone.registry.push("moving/tag", "latest", picture(13, 15))
        second = await client.pull(reference, timeout=TIMEOUT)
    assert first.image_id != second.image_id
    assert (second.sharing.reused, second.sharing.fetched) == (1, 1)
    assert lone.registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 2}


async def test_an_index_costs_one_manifest_more(lone: Place) -> None:
    stacks = {name: [layer(tar_of({name: name.encode()}))] for name in ("linux/amd64", "linux/arm64")}
    built = index([image(stack, platform=name) for name, stack in stacks.items()])
    reference = lone.registry.push("index/two", "latest", built)
    async with connect(lone.pullonce.url) as client:
        ending = await client.pull(reference, timeout=TIMEOUT, platform="linux/arm64")
    assert lone.registry.counts() == {"HEAD manifests": 1, "GET manifests": 2, "GET blobs": 2}
    assert (ending.platform, ending.digest) == ("linux/arm64", built.digest)


async def test_without_unpacking_nothing_is_unpacked(lone: Place) -> None:
    reference = lone.registry.push("no/unpack", "latest", picture(16))
    before = len(await lone.pullonce.events())
    async with connect(lone.pullonce.url) as client:
        ending = await client.pull(reference, timeout=TIMEOUT, unpack=False)
    assert (ending.chain_id, ending.sharing.fetched, ending.sharing.unpacked) == ("", 1, 0)
    assert not [e for e in (await lone.pullonce.events())[before:] if isinstance(e, LayerUnpacked)]


async def test_a_failure_is_typed_and_told_to_all_who_asked(lone: Place) -> None:
    lone.registry.forget()
    with Gate(lone.registry.host, holds=b"/manifests/") as gate:
        reference = f"{gate.host}/no/such:image"
        async with connect(lone.pullonce.url) as client:
            pulls = [asyncio.create_task(client.pull(reference, timeout=TIMEOUT)) for _ in range(20)]
            await requested(client, reference, 20)
            gate.open()
            answers = await asyncio.gather(*pulls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {PullFailedError}
    assert {answer.code for answer in answers if isinstance(answer, PullFailedError)} == {"MANIFEST_UNKNOWN"}
    assert lone.registry.counts()["HEAD manifests"] == 1, "twenty waiters on a permanent failure cost one attempt"


async def test_a_failed_pull_leaves_the_services_working(lone: Place) -> None:
    async with connect(lone.pullonce.url) as client:
        with pytest.raises(PullFailedError) as refused:
            await client.pull("127.0.0.1:1/nobody/here", timeout=TIMEOUT)
        assert refused.value.code == "registry.unavailable"
        reference = lone.registry.push("still/working", "latest", picture(17))
        assert (await client.pull(reference, timeout=TIMEOUT)).sharing.fetched == 1


def test_any_nats_client_may_ask(lone: Place) -> None:
    """A bare request, published with nothing but a NATS client, and answered on a subject that anyone can read."""
    reference = lone.registry.push("bare/request", "latest", picture(18))

    async def ask() -> dict[str, object]:
        connection = await nats.connect(lone.pullonce.url)
        endings = await connection.subscribe("pull.completed.>")
        ack = await connection.request("pull.requested", json.dumps({"reference": reference}).encode(), timeout=TIMEOUT)
        sequence = json.loads(ack.data)["seq"]
        while True:
            ending: dict[str, object] = json.loads((await endings.next_msg(timeout=TIMEOUT)).data)
            if ending["reference"] == reference and ending["covers"] > sequence:  # type: ignore[operator]
                await connection.close()
                return ending

    ending = asyncio.run(ask())
    assert ending["type"] == "pull.completed"
    assert str(ending["image_id"]).startswith("sha256:")


def test_what_is_no_event_is_parked_with_its_reason_and_stops_nothing(lone: Place) -> None:
    async def publish() -> tuple[int, str, bytes]:
        connection = await nats.connect(lone.pullonce.url)
        parked = await connection.subscribe("parked.>")
        ack = await connection.request("pull.requested", b'{"refe', timeout=TIMEOUT)
        found = await parked.next_msg(timeout=TIMEOUT)
        await connection.close()
        return json.loads(ack.data)["seq"], found.subject, found.data

    sequence, subject, _ = asyncio.run(publish())
    assert subject == f"parked.EVENTS.{sequence}"
    assert lone.pullonce.run("pull", lone.registry.push("after/junk", "latest", picture(19))).returncode == 0


def test_an_invalid_reference_published_bare_is_answered(lone: Place) -> None:
    async def ask() -> dict[str, object]:
        connection = await nats.connect(lone.pullonce.url)
        endings = await connection.subscribe("pull.failed.>")
        await connection.publish("pull.requested", b'{"reference": "NOT a reference"}')
        ending: dict[str, object] = json.loads((await endings.next_msg(timeout=TIMEOUT)).data)
        await connection.close()
        return ending

    assert asyncio.run(ask())["code"] == "reference.invalid"


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount needs root")
def test_the_snapshot_can_be_mounted_and_shows_the_files(lone: Place, tmp_path: Path) -> None:
    reference = lone.registry.push("to/mount", "latest", picture(20, 21))
    assert lone.pullonce.run("pull", reference).returncode == 0
    target = tmp_path / "mounted"
    target.mkdir()
    done = lone.pullonce.run("mount", reference, str(target))
    assert done.returncode == 0, done.stderr
    try:
        assert (target / "file-20").read_bytes() == noise(20)
        assert (target / "dir-21" / "text").read_bytes() == b"hello"
    finally:
        assert lone.pullonce.run("umount", str(target)).returncode == 0
    assert not any(target.iterdir())

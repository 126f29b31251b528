"""compose.yaml as people run it, seen through the ports it publishes on loopback. Run by `./dev test-compose`."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compose.engine import Engine
from tests.compose.images import provide
from tests.compose.requests import Requester, requester
from tests.compose.stack import Stack
from tests.support.images import Image, image, layer, tar_of

pytestmark = pytest.mark.timeout(600)

REPLICATED = ("coordinator", "fetcher", "unpacker")
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as found:
        provide(found)
        yield found


@pytest.fixture(scope="module")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(engine, tmp_path_factory.mktemp("keys")) as found:
        yield found


def fresh(layers: int = 4, size: int = 3_000_000) -> Image:
    """An image that nobody has pulled yet."""
    noise = random.Random()
    return image([layer(tar_of({f"{n}/{noise.random()}": noise.randbytes(size)})) for n in range(layers)])


def push_fresh(stack: Stack, **what: int) -> tuple[str, str]:
    """A name of its own for a fresh image, and its reference."""
    name = f"test/image-{next(_numbers)}"
    return name, stack.push(name, fresh(**what))


async def pull(asking: Requester, reference: str, times: int = 20) -> list[dict[str, Any]]:
    sequences = await asyncio.gather(*(asking.ask(reference) for _ in range(times)))
    return await asyncio.gather(*(asking.ending(reference, sequence) for sequence in sequences))


def test_everything_comes_up_and_shows_itself_on_loopback_only(stack: Stack) -> None:
    running = Counter(each["Config"]["Labels"]["com.docker.compose.service"] for each in stack.containers())
    assert running == {"nats": 1, "registry": 1, "ledger": 1} | dict.fromkeys(REPLICATED, 2)
    published = [
        each["HostIp"]
        for container in stack.containers()
        for port in container["NetworkSettings"]["Ports"].values()
        for each in port or ()
    ]
    assert published and set(published) == {"127.0.0.1"}
    with urllib.request.urlopen(f"{stack.ledger}/healthz", timeout=10) as answer:
        assert json.load(answer) == {"status": "ok"}


def test_no_part_has_more_rights_than_it_needs(stack: Stack) -> None:
    for container in stack.containers():
        service = container["Config"]["Labels"]["com.docker.compose.service"]
        if service == "registry":
            continue
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{container['State']['Pid']}/status").read_text().splitlines()
        )
        assert container["HostConfig"]["ReadonlyRootfs"], service
        assert status["NoNewPrivs"] == "1", service
        if service != "unpacker":
            assert (status["Uid"].split()[0], status["CapEff"]) == ("10001", "0" * 16), service
    secrets = {each["Destination"] for each in stack.containers("fetcher")[0]["Mounts"]}
    assert secrets == {"/bus/fetcher", "/var/lib/pullonce"}


async def test_twenty_pulls_from_outside_cost_the_registry_one(stack: Stack) -> None:
    name, reference = push_fresh(stack)
    before = stack.asked(name)
    async with requester(stack) as asking:
        endings = await pull(asking, reference)
    assert {ending["type"] for ending in endings} == {"pull.completed"}, endings[0]
    assert len({ending["image_id"] for ending in endings}) == 1
    assert endings[0]["sharing"]["fetched"] == 4 and endings[0]["sharing"]["unpacked"] == 4
    asked = stack.asked(name) - before
    assert asked["GET blobs"] == 5 and asked["HEAD manifests"] + asked["GET manifests"] <= 2, asked


def test_commands_of_the_readme_work_in_a_container(stack: Stack) -> None:
    stack.compose("--profile", "demo", "run", "--rm", "-T", "seed")
    told = json.loads(stack.compose("run", "--rm", "-T", "client", "pull", "--json", "registry:5000/demo/app:1"))
    assert told["type"] == "pull.completed" and told["layers"] == 4
    assert "registry:5000/demo/app:1" in stack.compose("run", "--rm", "-T", "client", "images")
    assert "lowerdir=" in stack.compose("run", "--rm", "-T", "client", "mounts", "registry:5000/demo/app:1")
    assert "fetcher" in stack.compose("run", "--rm", "-T", "client", "ping")
    assert "pull.completed" in stack.compose("run", "--rm", "-T", "admin", "events")


async def under_way(stack: Stack, asking: Requester, happen: Callable[[], object]) -> None:
    """Twenty pulls of a fresh image, during which something happens; all must end well."""
    _, reference = push_fresh(stack)
    sequences = await asyncio.gather(*(asking.ask(reference) for _ in range(20)))
    await asking.until_resolved(reference)
    assert not asking.ended(reference), "nothing can happen in the middle of what is over"
    await asyncio.to_thread(happen)
    endings = await asyncio.gather(*(asking.ending(reference, sequence) for sequence in sequences))
    assert {ending["type"] for ending in endings} == {"pull.completed"}, endings[0]


async def test_any_container_may_die_in_the_middle_of_pulls(stack: Stack) -> None:
    async with requester(stack) as asking:
        for service in (*REPLICATED, "ledger", "nats", "registry"):
            for container in stack.containers(service):
                await under_way(stack, asking, lambda which=container: stack.kill(which))  # type: ignore[misc]
    await asyncio.to_thread(stack.until_healthy)


async def test_the_bus_may_be_restarted_in_the_middle_of_pulls(stack: Stack) -> None:
    async with requester(stack) as asking:
        container = stack.containers("nats")[0]["Id"]
        await under_way(stack, asking, lambda: stack.engine.docker("restart", "-t", "10", container))


async def test_coordinators_may_be_added_and_taken_away(stack: Stack) -> None:
    async with requester(stack) as asking:
        for count in (3, 2):
            scale = ("up", "-d", "--no-recreate", "--no-deps", "--scale", f"coordinator={count}", "coordinator")
            await under_way(stack, asking, lambda words=scale: stack.compose(*words))  # type: ignore[misc]
            assert len(stack.containers("coordinator")) == count


async def test_a_rolling_restart_under_load_loses_no_request(stack: Stack) -> None:
    references = [push_fresh(stack, layers=2, size=200_000)[1] for _ in range(4)]
    asked: list[tuple[str, int]] = []
    async with requester(stack) as asking:

        async def load() -> None:
            for reference in itertools.cycle(references):
                asked.append((reference, await asking.ask(reference)))
                await asyncio.sleep(0.02)

        loading = asyncio.create_task(load())
        for service in (*REPLICATED, "ledger", "nats"):
            for container in stack.containers(service):
                await asyncio.to_thread(stack.engine.docker, "restart", "-t", "10", container["Id"])
                await asyncio.to_thread(stack.until_healthy)
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        endings = await asyncio.gather(*(asking.ending(*each) for each in asked))
    assert len(asked) > 100
    assert Counter(ending["type"] for ending in endings) == {"pull.completed": len(asked)}


def test_down_leaves_nothing_behind(stack: Stack) -> None:
    stack.compose("down", "-v", "--remove-orphans", "-t", "10")
    ours = ("--filter", f"label=com.docker.compose.project={stack.project}", "-q")
    for what in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        assert stack.engine.docker(*what, *ours) == ""


async def test_a_cluster_of_three_goes_on_without_one_of_its_servers(engine: Engine, tmp_path: Path) -> None:
    servers = ("nats", "nats-2", "nats-3")
    environ = {"BUS_URL": ",".join(f"tls://{server}:4222" for server in servers), "BUS_REPLICAS": "3"}
    parts = (*servers, "registry", "coordinator", "fetcher", "unpacker")
    with Stack(engine, tmp_path / "keys", *parts, environ=environ) as stack:
        async with requester(stack) as asking:
            stream = json.loads((await asking.client.request("$JS.API.STREAM.INFO.EVENTS", b"", timeout=20)).data)
            assert stream["config"]["num_replicas"] == 3
            assert {ending["type"] for ending in await pull(asking, push_fresh(stack)[1])} == {"pull.completed"}
            await asyncio.to_thread(stack.engine.docker, "stop", "-t", "0", stack.containers("nats-3")[0]["Id"])
            assert {ending["type"] for ending in await pull(asking, push_fresh(stack)[1])} == {"pull.completed"}

"""Deaths in the middle of a push: the next one goes on where the registry stands, and nothing half done is to be seen."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from aiohttp import web

from pullonce.client import connect
from pullonce.store.content import open_store
from services.fetcher.pushing.blobs import PART
from tests.integration.exchange.conftest import NAME, list_image
from tests.support.deployment import Deployment
from tests.support.images import image, layer, tar_of
from tests.support.push_registry import Fault, PushRegistry, answers, held_until

BIG = layer(tar_of({"zeros": bytes(2 * PART + PART // 4)}), "plain")
NAMING = "PUT /v2/app/manifests"
IMAGE = image([BIG, layer(tar_of({"file": b"content"}))])


@pytest.fixture(scope="module")
def pullonce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("push") / "home", environ={"PULLONCE_RETRY": "20"}).start()
    list_image(open_store(deployment.store), NAME, IMAGE)
    yield deployment
    deployment.stop()


def start(pullonce: Deployment, target: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pullonce", "push", NAME, target, *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=pullonce.environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, complaint = await asyncio.to_thread(process.communicate, None, 60)
    return process.returncode, said + complaint


async def fetcher(pullonce: Deployment) -> int:
    async with connect(pullonce.url) as client:
        return next(each.pid for each in await client.ping() if each.service == "fetcher")


@pytest.mark.parametrize(("where", "count"), [("PATCH", 2), (NAMING, 1)])
async def test_a_fetcher_that_dies_in_mid_push_costs_what_was_not_taken(pullonce: Deployment, where: str, count: int) -> None:
    async with PushRegistry() as registry:
        release, reached = asyncio.Event(), asyncio.Event()
        registry.plan(where, holding(count, release, reached), 2)
        pushing = start(pullonce, f"{registry.host}/app:1")
        await reached.wait()
        os.kill(await fetcher(pullonce), signal.SIGKILL)
        release.set()
        code, said = await ended(pushing)
        assert code == 0, said
        assert registry.has("app", IMAGE.blobs)
        assert registry.manifests["app", "1"][1] == IMAGE.content
        ranges = [each["Content-Range"] for each in registry.asked("PATCH")]
        assert ranges[0].startswith("0-") and [each for each in ranges if each.startswith("0-")] == ranges[:1], ranges


@pytest.mark.parametrize(
    ("number", "where", "count"),
    [(signal.SIGINT, "PATCH", 2), (signal.SIGTERM, "PATCH", 2), (signal.SIGINT, "POST", 1), (signal.SIGINT, NAMING, 1)],
)
async def test_a_push_that_is_interrupted_is_gone_on_with(
    pullonce: Deployment, number: signal.Signals, where: str, count: int
) -> None:
    async with PushRegistry() as registry:
        release, reached = asyncio.Event(), asyncio.Event()
        registry.plan(where, holding(count, release, reached), 2)
        pushing = start(pullonce, f"{registry.host}/app:1")
        await reached.wait()
        pushing.send_signal(number)
        code, said = await ended(pushing)
        assert code == 128 + number, said
        release.set()
        assert ("app", "1") not in registry.manifests
        again = start(pullonce, f"{registry.host}/app:1")
        code, said = await ended(again)
        assert code == 0, said
        assert registry.has("app", IMAGE.blobs)
        assert len([each for each in registry.asked("PATCH") if each["Content-Range"].startswith("0-")]) == 1


def holding(number: int, release: asyncio.Event, reached: asyncio.Event) -> Fault:
    """The requests before that one are answered; it waits."""
    held, count = held_until(release, reached), 0

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse | None:
        nonlocal count
        count += 1
        return await held(registry, request) if count == number else None

    return fault


async def test_whoever_sees_no_bars_is_told_once_what_a_push_waits_for(pullonce: Deployment) -> None:
    async with PushRegistry() as registry:
        for where in ("POST /v2/app/blobs", NAMING):
            registry.plan(where, answers(503, "UNAVAILABLE", f"{where[:4]}: we move", {"Retry-After": "1"}), 1)
        process = start(pullonce, f"{registry.host}/app:1", "--quiet")
        said, complaint = await asyncio.to_thread(process.communicate, None, 60)
        assert process.returncode == 0 and said
    lines = complaint.splitlines()
    assert lines and len(set(lines)) == len(lines), lines
    assert all("tried again" in line and "we move" in line for line in lines), lines
    assert {line.partition(": we move")[0][-4:] for line in lines} == {"POST", "PUT "}, lines


async def test_a_fetcher_may_open_as_many_files_as_it_is_allowed(pullonce: Deployment) -> None:
    soft, hard = resource.prlimit(await fetcher(pullonce), resource.RLIMIT_NOFILE)
    assert soft == hard

"""The mirror where content is isolated: what grows for one client is nobody else's, whatever a registry of theirs says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from aiohttp import web

from tests.integration.gateway.mirror_door import PASSWORD, USER, Answer, MirrorDoor, basic
from tests.support.faulty import Fault, FaultyRegistry, answers
from tests.support.images import Image, image, layer, tar_of
from tests.support.registry import RegistryServer

SIZE = 1_000_000


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorDoor]:
    registry = RegistryServer(tmp_path_factory.mktemp("registry")).start()
    with MirrorDoor(tmp_path_factory.mktemp("home"), registry, PULLONCE_CONTENT="isolated") as made:
        yield made
    registry.stop()


def an_image() -> Image:
    return image([layer(tar_of({"file": os.urandom(SIZE)}))])


async def private(request: web.Request) -> web.Response | None:
    """What is there is for whoever shows one login."""
    if request.headers.get("Authorization") == basic(USER, PASSWORD)["Authorization"]:
        return None
    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})


def half(half_sent: asyncio.Event, release: asyncio.Event) -> Fault:
    """Send half of a blob, and the rest when released."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse | None:
        if request.method == "HEAD":
            return None
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        half_sent.set()
        await release.wait()
        await response.write(content[len(content) // 2 :])
        return response

    return fault


def says_it_has_it(body: Fault) -> Fault:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse | None:
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(len(content)), "Content-Type": "application/octet-stream"})
        return await body(request, content)

    return fault


async def ask(door: MirrorDoor, host: str, path: str, **headers: str) -> Answer:
    return await asyncio.to_thread(lambda: door.ask(f"{path}?ns={host}", headers=headers))


async def test_what_grows_for_one_is_not_given_to_another(door: MirrorDoor) -> None:
    made, half_sent, release = an_image(), asyncio.Event(), asyncio.Event()
    digest, login = made.layers[0], basic(USER, PASSWORD)
    async with FaultyRegistry(made, guard=private) as theirs, FaultyRegistry(made) as own:
        theirs.plan(digest, half(half_sent, release))
        own.plan(digest, says_it_has_it(answers(404)), times=99)
        assert (await ask(door, theirs.host, "/v2/app/manifests/1", **login)).status == 200
        alice = asyncio.create_task(ask(door, theirs.host, f"/v2/app/blobs/{digest}", **login))
        async with asyncio.timeout(30):
            await half_sent.wait()
        asked = [asyncio.create_task(ask(door, own.host, f"/v2/x/y/blobs/{digest}"))]
        asked += [
            asyncio.create_task(ask(door, theirs.host, f"/v2/app/blobs/{digest}", **each)) for each in ({}, basic("eve", "x"))
        ]
        _, waiting = await asyncio.wait(asked, timeout=1.0)
        assert waiting, "one of them waits for what its own registry has to send"
        release.set()
        assert (await alice).body == made.blobs[digest]
        for each in asked:
            answer = await each
            assert answer.status in (401, 404) and made.blobs[digest][:1000] not in answer.body
        later = await ask(door, own.host, f"/v2/x/y/blobs/{digest}")
        assert later.status == 404, "nor when it is there"
        assert (await ask(door, theirs.host, f"/v2/app/blobs/{digest}", **login)).body == made.blobs[digest]


async def test_whose_registry_sends_it_has_it(door: MirrorDoor) -> None:
    made = an_image()
    digest = made.layers[0]
    async with FaultyRegistry(made) as one, FaultyRegistry(made) as other:
        for registry in (one, other):
            assert (await ask(door, registry.host, f"/v2/some/app/blobs/{digest}")).body == made.blobs[digest]
            assert (await ask(door, registry.host, "/v2/some/app/manifests/1")).body == made.content

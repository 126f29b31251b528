"""The story of a stranger's registry: what it answers, or does not, is felt by those who ask for his images, and nobody else.

A stranger may name any digest in a manifest of his own, and any diffID in a config. So his pull may be the first to ask for a
blob or a layer that a victim needs as well, and his registry the one that is asked for it. Everything here goes through all of
pullonce, from a client's request to its ending; single parts are tested beside them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from pullonce.client import connect
from pullonce.errors import PullFailed
from schemas.events import PullResolved
from tests.integration.fetcher.test_silence import silent
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.faulty import Fault, FaultyRegistry, answers, held_until
from tests.support.images import Image, Layer, digest_of, image, layer, tar_of
from tests.support.nats_server import NatsServer

LIMIT = 60


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    environ = {"PULLONCE_PATIENCE": "30", "PULLONCE_SLOW_SECONDS": "1", "PULLONCE_SLOW_RATE": "16384"}
    home = tmp_path_factory.mktemp("home") / "here"
    with Crew(home, bus_server.url, environ=environ, coordinator=1, fetcher=1, unpacker=1) as running:
        yield running
        assert [member.deaths for member in running.members] == [[], [], []], "nothing a stranger does ends a service"


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something has happened."""

    async def look() -> bool:
        return holds()

    await eventually(look)


def victims(seed: int) -> tuple[Image, Layer]:
    """An image of one layer, and that layer."""
    only = layer(tar_of({"app": random.Random(seed).randbytes(400_000)}))
    return image([only]), only


def drips(begun: asyncio.Event, never: asyncio.Event) -> Fault:
    """50 bytes a second, right ones, for ever."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        for at in range(len(content)):
            await response.write(content[5 * at : 5 * at + 5])
            begun.set()
            try:
                async with asyncio.timeout(0.1):
                    await never.wait()
                    break
            except TimeoutError:
                continue
        return response

    return fault


async def test_his_registry_is_mute_and_a_hundred_ask_it(crew: Crew) -> None:
    """Pulls of a present image and of another registry's do not wait for it."""
    made, _ = victims(1)
    async with silent() as mute, FaultyRegistry(made) as registry, connect(crew.url, patience=LIMIT) as client:
        await client.pull(registry.reference, timeout=LIMIT)
        hundred = [asyncio.ensure_future(client.pull(f"{mute.host}/app:{number}")) for number in range(100)]
        await until(lambda: mute.connections >= 8)
        begun = time.monotonic()
        await client.pull(registry.reference, policy="if-not-present", timeout=LIMIT)
        await client.pull(registry.reference, timeout=LIMIT)
        other, _ = victims(2)
        async with FaultyRegistry(other) as another:
            await client.pull(another.reference, timeout=LIMIT)
        print(f"three pulls beside a hundred mute ones took {time.monotonic() - begun:.3f} s")
        assert not any(each.done() for each in hundred), "nobody had given up on the mute one by then"
        for each in hundred:
            each.cancel()
        await asyncio.gather(*hundred, return_exceptions=True)


def hoard(images: int, layers: int) -> Image:
    """Many images, of many layers each, behind one registry: each to be asked for by its digest."""
    made = [image([layer(tar_of({f"{a}.{b}": b""})) for b in range(layers)]) for a in range(images)]
    manifests = {each.digest: (each.media_type, each.content) for each in made}
    return dataclasses.replace(made[0], manifests=manifests, blobs={k: v for each in made for k, v in each.blobs.items()})


async def test_he_has_thousands_of_layers_that_do_not_come(crew: Crew) -> None:
    """More than workers can have in hand: neither a fetcher nor an unpacker is full of them."""
    his, (made, _), never = hoard(8, 400), victims(5), asyncio.Event()

    async def hold(request: web.Request, content: bytes) -> None:
        if not content.startswith(b"{"):  # configs come, so that all is ordered
            await never.wait()

    async with (
        FaultyRegistry(his) as hostile,
        FaultyRegistry(made) as honest,
        connect(crew.url, patience=LIMIT) as client,
    ):
        hostile.plan("GET /v2/app/blobs/", hold, times=100_000)
        resolved: set[str] = set()

        def take(update: object) -> None:
            if isinstance(update, PullResolved):
                resolved.add(update.reference)

        references = [f"{hostile.host}/app@{digest}" for digest in his.manifests]
        his_pulls = [asyncio.ensure_future(client.pull(each, progress=take, timeout=LIMIT)) for each in references]
        await until(lambda: len(resolved) == len(references))
        begun = time.monotonic()
        await client.pull(honest.reference, timeout=LIMIT)
        print(f"a pull beside 6,400 orders that come to nothing took {time.monotonic() - begun:.3f} s")
        assert not any(each.done() for each in his_pulls)
        for each in his_pulls:
            each.cancel()
        await asyncio.gather(*his_pulls, return_exceptions=True)
        never.set()


async def test_he_leads_a_shared_blob_and_lets_it_drip(crew: Crew) -> None:
    """The victim's registry is asked for what he does not bring; what he brought is continued, not fetched again."""
    made, only = victims(3)
    begun, never = asyncio.Event(), asyncio.Event()
    async with (
        FaultyRegistry(made) as hostile,
        FaultyRegistry(made) as honest,
        connect(crew.url, patience=LIMIT) as client,
    ):
        hostile.plan(f"GET /v2/app/blobs/{only.digest}", drips(begun, never), times=100)
        stranger = asyncio.ensure_future(client.pull(hostile.reference, timeout=LIMIT))
        await asyncio.wait_for(begun.wait(), LIMIT)
        started = time.monotonic()
        await client.pull(honest.reference, timeout=LIMIT)
        print(f"a victim of a drip of 50 B/s waited {time.monotonic() - started:.3f} s")
        (asked,) = honest.asked(f"GET /v2/app/blobs/{only.digest}")
        assert asked.headers["Range"].startswith("bytes="), "the bytes that are there count"
        await stranger  # what the victim's registry brought is his, too
        never.set()


async def test_his_config_claims_the_victims_layer_over_a_blob_that_does_not_come(crew: Crew) -> None:
    made, only = victims(4)
    other = layer(tar_of({"app": b"something else"}))
    claiming = dataclasses.replace(other, diff_id=only.diff_id)
    begun, never = asyncio.Event(), asyncio.Event()
    async with (
        FaultyRegistry(image([claiming])) as hostile,
        FaultyRegistry(made) as honest,
        connect(crew.url, patience=LIMIT) as client,
    ):

        async def hold(request: web.Request, content: bytes) -> None:
            begun.set()
            await never.wait()

        hostile.plan(f"GET /v2/app/blobs/{claiming.digest}", hold, times=100)
        stranger = asyncio.ensure_future(client.pull(hostile.reference, timeout=LIMIT))
        await asyncio.wait_for(begun.wait(), LIMIT)
        started = time.monotonic()
        await client.pull(honest.reference, timeout=LIMIT)
        print(f"a victim of a blob that never came waited {time.monotonic() - started:.3f} s")
        assert not stranger.done()
        stranger.cancel()
        await asyncio.gather(stranger, return_exceptions=True)
        never.set()


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (1, answers(307, headers={"Location": "https://127.0.0.1:99999/x"})),
        (2, answers(307, headers={"Location": f"https://{'a' * 70}.example/x"})),
        (3, answers(503, headers={"Retry-After": "300"})),
        (4, answers(404)),
    ],
    ids=["port 99999", "a label of 70 letters", "ask again in five minutes", "not there"],
)
async def test_he_leads_a_shared_blob_and_what_he_answers_fails_nobody_else(crew: Crew, number: int, answer: Fault) -> None:
    made, only = victims(10 + number)
    begun, go = asyncio.Event(), asyncio.Event()
    async with (
        FaultyRegistry(made) as hostile,
        FaultyRegistry(made) as honest,
        connect(crew.url, patience=LIMIT) as client,
    ):

        async def then(request: web.Request, content: bytes) -> web.StreamResponse | None:
            begun.set()
            await go.wait()
            return await answer(request, content)

        hostile.plan(f"GET /v2/app/blobs/{only.digest}", then, times=100)
        stranger = asyncio.ensure_future(client.pull(hostile.reference, timeout=LIMIT))
        await asyncio.wait_for(begun.wait(), LIMIT)
        victim = asyncio.ensure_future(client.pull(honest.reference, timeout=LIMIT))
        await until(lambda: bool(honest.asked("manifests")))
        go.set()
        await victim
        try:
            await stranger
        except PullFailed as exc:
            assert exc.code in ("registry.redirects", "BLOB_UNKNOWN")


def nested(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


async def test_what_he_sends_is_a_typed_failure_at_once_and_never_internal(crew: Crew) -> None:
    """Deep JSON, numbers in other digits, types that are none: each is said as what it is."""
    made, _ = victims(20)
    deep = b"[" * 100_000
    fields = made.document
    for content, code in (
        (deep, "MANIFEST_INVALID"),
        (nested({**fields, "config": {**fields["config"], "size": "1_0"}}), "MANIFEST_INVALID"),
        (nested({**fields, "layers": [{"digest": "x"}]}), "DIGEST_INVALID"),
        (nested({**fields, "config": {**fields["config"], "digest": "sha256:\u00b2"}}), "DIGEST_INVALID"),
    ):
        sent = dataclasses.replace(made, content=content)
        async with FaultyRegistry(sent) as hostile, connect(crew.url, patience=LIMIT) as client:
            with pytest.raises(PullFailed) as failed:
                await client.pull(hostile.reference, timeout=LIMIT)
            assert failed.value.code == code and len(hostile.asked("GET")) <= 2
    config = deep
    odd = dataclasses.replace(
        made,
        content=nested({**fields, "config": {**fields["config"], "digest": digest_of(config), "size": len(config)}}),
        blobs={**made.blobs, digest_of(config): config},
    )
    async with FaultyRegistry(odd) as hostile, connect(crew.url, patience=LIMIT) as client:
        with pytest.raises(PullFailed) as failed:
            await client.pull(hostile.reference, timeout=LIMIT)
        assert failed.value.code == "MANIFEST_INVALID" and "its config cannot be read" in str(failed.value)


async def test_who_leaves_his_mute_registry_leaves_nothing_behind(crew: Crew) -> None:
    made, _ = victims(30)
    never = asyncio.Event()
    async with FaultyRegistry(made) as hostile, connect(crew.url, patience=LIMIT) as client:
        hostile.plan("HEAD", held_until(never), times=100)
        asked = [asyncio.ensure_future(client.pull(f"{hostile.host}/app:{number}")) for number in range(20)]
        await until(lambda: len(hostile.seen) >= 8)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        other, _ = victims(31)
        async with FaultyRegistry(other) as honest:
            await client.pull(honest.reference, timeout=LIMIT)
        never.set()
        seen = len(hostile.seen)
        await client.pull(f"{hostile.host}/app:1", timeout=LIMIT)
        assert len(hostile.seen) > seen and len(hostile.asked("HEAD")) <= 20 + 1

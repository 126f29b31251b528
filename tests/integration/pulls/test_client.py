"""The Python client against a real nats-server and scripted services."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from pullonce import client
from pullonce.errors import BusClosed, BusUnavailable, PullFailed, PullTimeout, ReferenceInvalid, ServicesMissing
from pullonce.pulling.identity import identify
from pullonce.pulling.listening import PullUpdate
from schemas.events import BlobFetched, LayerUnpacked, PullCompleted, PullRequested, PullResolved, ResolvedLayer, Source
from schemas.oci import Descriptor, DiffID
from schemas.progress import BlobProgress
from schemas.routing import progress_subject
from tests.support.nats_server import NatsServer, free_port
from tests.support.scripted import CHAIN, DIGEST, IMAGE_ID, PARTS, completed, failed, scripted

LIMIT = 30


async def test_a_pull_returns_its_ending(nats_url: str) -> None:
    async with scripted(nats_url) as script, client.connect(nats_url) as pulls:
        image = await pulls.pull("redis", platform="Linux/x86_64", credential="mine", requester="a test", timeout=LIMIT)
        assert isinstance(image, PullCompleted)
        assert (image.reference, image.image_id, image.chain_id) == ("docker.io/library/redis:latest", IMAGE_ID, CHAIN)
        request = script.requests[0][1]
    assert (request.platform, request.credential, request.requester) == ("linux/amd64", "mine", "a test")


async def test_a_pull_that_fails_raises_its_reason(nats_url: str) -> None:
    async with scripted(nats_url) as script, client.connect(nats_url) as pulls:
        script.answer = failed
        with pytest.raises(PullFailed, match="no manifest of that name") as caught:
            await pulls.pull("redis", timeout=LIMIT)
        with pytest.raises(ReferenceInvalid):
            await pulls.pull("Not A Reference")
    assert caught.value.code == "MANIFEST_UNKNOWN"


async def test_two_hundred_pulls_are_answered_by_one_ending(nats_url: str) -> None:
    async with scripted(nats_url) as script, client.connect(nats_url) as pulls:
        seen = 0

        def last(request: PullRequested, sequence: int) -> PullCompleted | None:
            nonlocal seen
            seen += 1
            return completed(request, sequence) if seen == 200 else None

        script.answer = last
        images = await asyncio.gather(*(pulls.pull("redis", timeout=LIMIT) for _ in range(200)))
    assert len({image.covers for image in images}) == 1


async def test_pulls_of_different_images_do_not_mix(nats_url: str) -> None:
    async with scripted(nats_url), client.connect(nats_url) as pulls:
        names = [f"docker.io/library/app{n}:latest" for n in range(20)]
        images = await asyncio.gather(*(pulls.pull(name, timeout=LIMIT) for name in names))
    assert [image.reference for image in images] == names


async def test_a_deadline_and_a_cancellation_withdraw_the_request(nats_url: str) -> None:
    async with scripted(nats_url) as script, client.connect(nats_url) as pulls:
        script.answer = lambda request, sequence: None
        with pytest.raises(PullTimeout, match=r"was not there after 0\.2 s"):
            await pulls.pull("redis", timeout=0.2)
        task = asyncio.create_task(pulls.pull("redis"))
        await script.until(lambda: len(script.requests) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await script.until(lambda: len(script.cancelled) == 2)
    assert [each.request for each in script.cancelled] == [sequence for sequence, _ in script.requests]


async def test_one_leaves_and_the_others_are_answered(nats_url: str) -> None:
    async with scripted(nats_url) as script, client.connect(nats_url) as pulls:
        script.answer = lambda request, sequence: None
        tasks = [asyncio.create_task(pulls.pull("redis", timeout=LIMIT)) for _ in range(3)]
        await script.until(lambda: len(script.requests) == 3)
        tasks[0].cancel()
        await script.until(lambda: len(script.cancelled) == 1)
        sequence, request = script.requests[-1]
        await script.say(completed(request, sequence))
        assert [image.covers for image in await asyncio.gather(*tasks[1:])] == [sequence + 1] * 2


async def test_the_first_to_ask_may_leave_before_the_endings_are_subscribed_to(nats_url: str) -> None:
    async with scripted(nats_url), client.connect(nats_url) as pulls:
        tasks = [asyncio.create_task(pulls.pull("redis", timeout=LIMIT)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert [image.covers for image in await asyncio.gather(*tasks[1:])]
        assert (await asyncio.gather(tasks[0], return_exceptions=True))[0].__class__ is asyncio.CancelledError
        # Nobody waits any more; whoever asks next subscribes anew.
        assert (await pulls.pull("redis", timeout=LIMIT)).covers


async def test_a_request_that_is_cancelled_while_it_is_sent_is_stored_once_and_withdrawn(nats_url: str) -> None:
    async with scripted(nats_url) as script, client.connect(nats_url) as pulls:
        script.answer = lambda request, sequence: None
        waiting = asyncio.create_task(pulls.pull("redis"))
        await script.until(lambda: len(script.requests) == 1)  # the endings are subscribed to
        leaving = asyncio.create_task(pulls.pull("redis"))
        for _ in range(2):  # it has begun to append, and no answer can be there yet
            await asyncio.sleep(0)
        leaving.cancel()
        await script.until(lambda: len(script.cancelled) == 1)
        assert len(script.requests) == 2 and script.cancelled[0].request == script.requests[1][0]
        waiting.cancel()


async def test_whoever_waits_hears_that_the_client_is_closed(nats_url: str) -> None:
    async with scripted(nats_url) as script:
        script.answer = lambda request, sequence: None
        async with client.connect(nats_url) as pulls:
            tasks = [asyncio.create_task(pulls.pull("redis")) for _ in range(3)]
            await script.until(lambda: len(script.requests) == 3)
        async with asyncio.timeout(LIMIT):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in ended] == [BusClosed] * 3


async def test_an_ending_that_fell_into_a_crash_is_looked_up(nats_server: NatsServer) -> None:
    async with scripted(nats_server.url) as script, client.connect(nats_server.url) as pulls:
        script.answer = lambda request, sequence: None
        task = asyncio.create_task(pulls.pull("redis", timeout=LIMIT))
        await script.until(lambda: bool(script.requests))
        sequence, request = script.requests[0]
        nats_server.restart()
        await script.say(completed(request, sequence))
        assert (await task).covers == sequence + 1


async def test_progress_tells_what_concerns_the_image(nats_url: str) -> None:
    told: list[PullUpdate] = []
    all_told = asyncio.Event()

    def tell(update: PullUpdate) -> None:
        told.append(update)
        if len(told) == 4:
            all_told.set()

    async with scripted(nats_url) as script, client.connect(nats_url) as pulls:
        script.answer = lambda request, sequence: None
        task = asyncio.create_task(pulls.pull("redis", timeout=LIMIT, progress=tell))
        await script.until(lambda: bool(script.requests))
        sequence, request = script.requests[0]
        layer = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=DIGEST, size=10)
        await script.say(
            PullResolved(
                reference=request.reference,
                flight=identify("redis").flight,
                opened=sequence,
                platform="linux/amd64",
                source=Source("docker.io", "library/redis"),
                digest=DIGEST,
                manifest=layer,
                config=layer,
                layers=(ResolvedLayer(blob=layer, diff_id=DiffID(DIGEST), chain_id=CHAIN),),
            )
        )
        for progress in (BlobProgress(digest=DIGEST, done=5), BlobProgress(digest=IMAGE_ID, done=1)):
            await script.bus.signals.publish(progress_subject(progress), _encoded(progress))
        await script.say(BlobFetched(digest=IMAGE_ID, size=1, revision=1))
        await script.say(BlobFetched(digest=DIGEST, size=10, revision=2))
        await script.say(LayerUnpacked(chain_id=CHAIN, diff_id=DiffID(DIGEST), revision=3))
        async with asyncio.timeout(LIMIT):
            await all_told.wait()
        await script.say(completed(request, sequence))
        await task
    assert {type(each) for each in told} == {PullResolved, BlobProgress, BlobFetched, LayerUnpacked}
    assert len(told) == 4


async def test_who_is_there(nats_url: str) -> None:
    async with client.connect(nats_url) as pulls:
        assert await pulls.ping(0.3) == []
        with pytest.raises(ServicesMissing, match="no coordinator answers"):
            await pulls.status(0.3)
        async with scripted(nats_url):
            pongs = await pulls.ping(2.0, enough=lambda found: len(found) == len(PARTS))
    assert {(pong.service, pong.store) for pong in pongs} == set(PARTS)


async def test_nobody_at_the_address() -> None:
    with pytest.raises(BusUnavailable):
        async with client.connect(f"nats://127.0.0.1:{free_port()}", patience=0.5):
            pass


async def test_nothing_serves_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("PULLONCE_HOME", str(tmp_path))
    monkeypatch.delenv("PULLONCE_NATS_URL", raising=False)
    with pytest.raises(ServicesMissing, match="nothing serves"):
        async with client.connect():
            pass


def _encoded(message: object) -> bytes:
    return msgspec.json.encode(message)

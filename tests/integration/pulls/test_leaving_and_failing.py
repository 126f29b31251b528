"""Who leaves, runs out of time or has the wrong password troubles nobody else, and a failure costs one attempt, not twenty.

Real services, and a registry that is told what to answer and sees every request.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest
from aiohttp import web

from pullonce.client import Client, connect
from pullonce.errors import PullFailed, PullTimeout
from pullonce.pulling.identity import identify
from pullonce.pulling.listening import PullUpdate
from schemas.events import PullCancelled, PullCompleted, PullRequested, PullResolved
from schemas.events import PullFailed as Failed
from schemas.progress import BlobProgress, PullProgress
from schemas.subjects import pull_subject, seal_of
from tests.integration.pulls.test_pulls import happened
from tests.support.deployment import Deployment
from tests.support.faulty import Fault, FaultyRegistry, answers, error, held_until, sends
from tests.support.images import Image, Layer, image, layer, tar_of

TIMEOUT = 60
MANY = 20


@pytest.fixture(scope="module")
def pullonce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("home")
    deployment = Deployment(home).start()
    yield deployment
    deployment.stop()


class Picture:
    """An image of one layer that no other test has."""

    def __init__(self, seed: int, size: int = 200_000) -> None:
        self.layer: Layer = layer(tar_of({f"file-{seed}": random.Random(seed).randbytes(size)}), "plain")
        self.image: Image = image([self.layer])

    @property
    def get(self) -> str:
        """The request for the layer."""
        return f"blobs/{self.layer.digest}"


async def in_the_air(client: Client, reference: str, times: int, after: int = 0) -> None:
    """Return when the log holds this many requests for an image."""
    await happened(client, PullRequested, times, after, identify(reference).reference)


# -- failing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "fault", "code"),
    [
        (1, answers(404, "BLOB_UNKNOWN", "never heard of it"), "BLOB_UNKNOWN"),
        (2, sends(b"x" * len(Picture(2).layer.blob)), "digest.mismatch"),
        (3, answers(403, "DENIED", "not for you"), "DENIED"),
    ],
    ids=["404", "other bytes", "403"],
)
async def test_twenty_waiters_on_a_blob_that_cannot_be_had_cost_one_attempt_and_a_fresh_try(
    pullonce: Deployment, seed: int, fault: Fault, code: str
) -> None:
    picture, together = Picture(seed), asyncio.Event()
    async with FaultyRegistry(picture.image) as registry, connect(pullonce.url) as client:
        registry.plan("HEAD", held_until(together))
        registry.plan(picture.get, fault, times=100)
        pulls = [asyncio.create_task(client.pull(registry.reference, timeout=TIMEOUT)) for _ in range(MANY)]
        await in_the_air(client, registry.reference, MANY)
        together.set()
        outcomes = await asyncio.gather(*pulls, return_exceptions=True)
    assert [getattr(each, "code", each) for each in outcomes] == [code] * MANY
    # A blob is asked for once more from its beginning, in case an edge of the registry is damaged; for all twenty together.
    assert [len(registry.asked(each)) for each in ("HEAD", "manifests/sha256", picture.get)] == [1, 1, 2]


@pytest.mark.parametrize(("seed", "kind"), [(4, PullProgress), (5, BlobProgress)], ids=["resolve", "fetch"])
async def test_a_registry_that_asks_for_a_delay_gets_it_and_one_more_request(
    pullonce: Deployment, seed: int, kind: type[PullProgress | BlobProgress]
) -> None:
    picture, together = Picture(seed), asyncio.Event()
    where = "HEAD" if kind is PullProgress else picture.get
    told: list[list[PullUpdate]] = [[] for _ in range(MANY)]
    refused: list[float] = []

    async def not_now(request: web.Request, content: bytes) -> web.StreamResponse:
        await together.wait()
        refused.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "1"})

    async with FaultyRegistry(picture.image) as registry, connect(pullonce.url) as client:
        registry.plan(where, not_now)
        pulls = [asyncio.create_task(client.pull(registry.reference, timeout=TIMEOUT, progress=each.append)) for each in told]
        await in_the_air(client, registry.reference, MANY)
        together.set()
        await asyncio.gather(*pulls)
        asked = registry.asked(where)
        again = registry.times[registry.seen.index(asked[-1])]
    assert len(asked) == 2 and again - refused[0] >= 1.0
    for mine in told:
        words = [each for each in mine if isinstance(each, kind) and each.state == "retrying"]
        assert {(each.retry_in, "429" in each.error) for each in words} == {(1.0, True)}


# -- whose failure it is ---------------------------------------------------------------------------------------------------


class Desk:
    """The guard of a registry: asks for a password, and lets a guest see what there is, but not have it.

    Attributes:
        served: users in the order in which they asked for the layer.
    """

    def __init__(self, home: Path, registry: FaultyRegistry, layer: str) -> None:
        self.served: list[str] = []
        self.open = asyncio.Event()
        """Nobody is answered about the layer before."""
        self._layer = layer
        (home / "credentials").mkdir(exist_ok=True)
        for name, (user, password) in {
            "right": ("ali", "sesame"),
            "wrong": ("ali", "barley"),
            "guest": ("guest", "lodging"),
        }.items():
            auth = base64.b64encode(f"{user}:{password}".encode()).decode()
            (home / "credentials" / f"{name}.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))

    async def __call__(self, request: web.Request) -> web.Response | None:
        scheme, _, said = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(said).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if (user, password) not in (("ali", "sesame"), ("guest", "lodging")):
            return error(401, "UNAUTHORIZED", "who are you?", {"WWW-Authenticate": 'Basic realm="test"'})
        if self._layer not in request.path:
            return None
        self.served.append(user)
        await self.open.wait()
        return error(403, "DENIED", "not for guests") if user == "guest" else None


@pytest.mark.parametrize("first", ["right", "wrong"])
async def test_a_wrong_password_fails_who_used_it_and_nobody_else(pullonce: Deployment, first: str) -> None:
    picture = Picture(6 if first == "right" else 7)
    async with FaultyRegistry(picture.image) as registry, connect(pullonce.url) as client:
        desk = registry.guard = Desk(pullonce.home, registry, picture.layer.digest)
        references = {"right": registry.reference, "wrong": registry.reference.replace("/app:", "/other:")}
        pulls: dict[str, asyncio.Task[PullCompleted]] = {}
        for name in sorted(references, key=lambda name: name != first):
            pulls[name] = asyncio.create_task(client.pull(references[name], credential=name, timeout=TIMEOUT))
            await in_the_air(client, references[name], 1)
        with pytest.raises(PullFailed) as refused:
            await pulls["wrong"]
        assert refused.value.code == "UNAUTHORIZED" and not pulls["right"].done()
        desk.open.set()
        assert (await pulls["right"]).sharing.fetched == 1
    assert desk.served == ["ali"]


async def test_when_the_one_who_fetched_may_not_the_next_credentials_owner_leads(pullonce: Deployment) -> None:
    picture = Picture(8)
    async with FaultyRegistry(picture.image) as registry, connect(pullonce.url) as client:
        desk = registry.guard = Desk(pullonce.home, registry, picture.layer.digest)
        before = await client.last_sequence()
        guest = asyncio.create_task(client.pull(registry.reference, credential="guest", timeout=TIMEOUT))
        await happened(client, PullResolved, 1, before)
        right = asyncio.create_task(client.pull(registry.reference, credential="right", timeout=TIMEOUT))
        await happened(client, PullResolved, 2, before)
        desk.open.set()
        with pytest.raises(PullFailed, match="not for guests") as refused:
            await guest
        assert refused.value.code == "DENIED"
        assert (await right).digest == picture.image.digest
    # Before the guest fails, its login is shown once more, and the blob asked for once more; after that nobody asks for it.
    *before_it, last = desk.served
    assert last == "ali" and set(before_it) == {"guest"} and len(before_it) <= 3


# -- leaving ---------------------------------------------------------------------------------------------------------------


class Drip:
    """Answers slowly enough that it is known when the last byte flowed."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = 0.0
        self._news = asyncio.Condition()

    async def __call__(self, request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        try:
            while self.sent < len(content):
                await response.write(content[self.sent : self.sent + 20_000])
                await self._told(self.sent + 20_000)
                await asyncio.sleep(0.01)
        finally:
            self.ended = time.monotonic()
            await self._told(self.sent)
        return response

    async def _told(self, sent: int) -> None:
        async with self._news:
            self.sent = sent
            self._news.notify_all()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT), self._news:
            await self._news.wait_for(true)


async def test_the_last_to_leave_stops_the_bytes_and_what_came_is_kept(pullonce: Deployment) -> None:
    picture, drip = Picture(9, 12_000_000), Drip()
    async with FaultyRegistry(picture.image) as registry, connect(pullonce.url) as client:
        registry.plan(picture.get, drip)
        before = await client.last_sequence()
        program = asyncio.create_task(client.pull(registry.reference))
        command = pullonce.start_pull(registry.reference)
        await in_the_air(client, registry.reference, 2)
        await drip.until(lambda: drip.sent > 100_000)
        program.cancel()
        await happened(client, PullCancelled, 1, before)
        then = drip.sent
        await drip.until(lambda: drip.sent > then + 300_000)
        left = time.monotonic()
        command.send_signal(signal.SIGINT)
        await drip.until(lambda: bool(drip.ended))
        assert drip.ended - left < 1.0
        assert await asyncio.to_thread(command.wait, TIMEOUT) == 130
        assert (await happened(client, Failed, 1, before)).code == "pull.cancelled"
        assert (await client.pull(registry.reference, timeout=TIMEOUT)).sharing.fetched == 1
        _, again = registry.asked(picture.get)
    kept = int(again.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert drip.sent / 2 < kept <= drip.sent < len(picture.layer.blob)


async def test_a_request_is_withdrawn_once_however_often_it_is_said_and_by_whom(pullonce: Deployment) -> None:
    picture, release = Picture(10), asyncio.Event()
    async with FaultyRegistry(picture.image) as registry, connect(pullonce.url) as client:
        registry.plan(picture.get, held_until(release))
        before = await client.last_sequence()
        identity = identify(registry.reference)
        stranger = await nats.connect(pullonce.url)
        asked = await stranger.jetstream().publish(
            "pull.requested", json.dumps({"reference": registry.reference, "seal": seal_of("mine")}).encode()
        )
        stays = asyncio.create_task(client.pull(registry.reference, timeout=TIMEOUT))
        await happened(client, PullRequested, 2, before)
        for request in (asked.seq, asked.seq, asked.seq, before, asked.seq + 1000):
            body = {"reference": identity.reference, "flight": identity.flight, "request": request, "secret": "mine"}
            subject = pull_subject("cancelled", "default", identity.reference, identity.flight)
            await stranger.jetstream().publish(subject, json.dumps(body).encode())
        await happened(client, PullCancelled, 5, before)
        await stranger.close()
        release.set()
        assert (await stays).sharing.requests == 1


async def test_a_deadline_is_that_of_the_request_and_not_of_the_flight(pullonce: Deployment) -> None:
    picture, release = Picture(11), asyncio.Event()
    async with FaultyRegistry(picture.image) as registry, connect(pullonce.url) as client:
        registry.plan(picture.get, held_until(release))
        patient = asyncio.create_task(client.pull(registry.reference, timeout=TIMEOUT))
        await in_the_air(client, registry.reference, 1)
        with pytest.raises(PullTimeout):
            await client.pull(registry.reference, timeout=0.3)
        release.set()
        ending = await patient
        assert ending.sharing.requests == 1 and len(registry.asked(picture.get)) == 1

"""Who joins late sees at once where everything stands: what is under way, and what was finished before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pullonce.cli.bars import ProgressView
from pullonce.client import connect
from pullonce.pulling.blocking import BlockingPull
from pullonce.pulling.identity import identify
from pullonce.pulling.layers import LayerUpdate
from pullonce.pulling.listening import PullUpdate
from pullonce.pulling.request import Wanted
from pullonce.worker.present import Present
from schemas.oci import ChainID, Descriptor, Digest
from schemas.progress import BlobProgress, LayerProgress, decode_now
from schemas.routing import progress_subject
from schemas.subjects import progress_now_subject
from services.fetcher.progress import FetchProgress
from services.ledger.answers.live import Live
from tests.support.buses import LIMIT, NatsPlace, eventually, fetch
from tests.support.deployment import Deployment
from tests.support.gate import Gate
from tests.support.images import digest_of, image, layer, tar_of
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer


@pytest.fixture
def pullonce(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "home").start()
    yield deployment
    deployment.stop()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what messages bring about."""

    async def true() -> bool:
        return holds()

    await eventually(true)


async def test_a_late_joiner_sees_what_was_finished_before(registry: RegistryServer, pullonce: Deployment) -> None:
    first, second = (layer(tar_of({f"file-{each}": random.Random(each).randbytes(100_000)})) for each in range(2))
    behind = registry.push("late/joiner", "latest", image([first, second]))
    early: list[PullUpdate] = []
    late: list[PullUpdate] = []
    updates: list[LayerUpdate] = []
    with Gate(registry.host, holds=second.digest.encode()) as gate:
        reference = gate.reference(behind)
        async with connect(pullonce.url) as client, asyncio.TaskGroup() as tasks:
            pulls = [tasks.create_task(client.pull(reference, timeout=LIMIT, progress=early.append))]
            await until(lambda: any(isinstance(each, LayerProgress) and each.state == "committed" for each in early))
            pulls.append(tasks.create_task(client.pull(reference, timeout=LIMIT, progress=late.append, layers=updates.append)))
            await until(lambda: {"verified", "committed"} <= {getattr(each, "state", "") for each in late})
            assert {each.digest: each.state for each in updates}[first.digest] == "unpacked"
            thin = await asyncio.to_thread(watched_thinly, pullonce.url, reference)
            gate.open()
            await asyncio.gather(*pulls)
    said = next(each for each in late if isinstance(each, BlobProgress) and each.state == "verified")
    assert (said.digest, said.done) == (first.digest, len(first.blob))
    # The chain of the lowest layer is its diffID.
    assert any(isinstance(each, LayerProgress) and each.chain_id == first.diff_id for each in late)
    assert len(thin) == 2 and thin[0].split()[1] == "unpacked" and thin[1].split()[1] != "unpacked"


def watched_thinly(url: str, reference: str) -> list[str]:
    """What the light client draws once it was told how far everything is; it then leaves."""
    drawn: list[str] = []

    class Seen(Exception):
        pass

    class Screen:
        def write(self, text: str) -> None:
            drawn[:] = text.split("\n")

        def flush(self) -> None: ...

        def fileno(self) -> int:
            raise OSError

    identity = identify(reference)
    view = ProgressView(Screen(), identity.flight)  # type: ignore[arg-type]

    def watch(message: object) -> None:
        fields = msgspec.json.decode(message.body)  # type: ignore[attr-defined]
        view.take(fields)
        if fields.get("type") == "progress.now" and any(each["type"] == "layer.progress" for each in fields.get("works", ())):
            raise Seen

    wanted = Wanted(identity, store="default", requester="thin")
    pull = BlockingPull(lambda: url, wanted, timeout=LIMIT, watch=watch)
    try:
        with pytest.raises(Seen):
            pull.wait()
        pull.leave()
    finally:
        pull.close()
    view.close()
    return [line.rpartition("\r")[2] for line in drawn if "\r" in line]


async def test_a_worker_remembers_what_it_said_until_it_is_over(nats_server: NatsServer) -> None:
    one, two = (digest_of(each) for each in (b"one", b"two"))
    there = BlobProgress(digest=Digest(two), done=3, size=3, state="verified")
    place = NatsPlace(nats_server.url)
    async with place.connect() as bus, place.connect() as other:
        present = Present(bus.signals, "fetcher", "default", lambda name: there if name == two else None)
        await present.open()
        live = Live()

        async def asked(question: bytes = b"") -> list[tuple[str, int, str]]:
            bodies = await other.signals.gather(progress_now_subject("default"), question, timeout=0.3, take=live.hear_all)
            works = [each for body in bodies for each in decode_now(body).works]
            return [(each.digest, each.done, each.state) for each in works if isinstance(each, BlobProgress)]

        assert await asked() == []
        announcer = FetchProgress(present.signals, "default", Descriptor(media_type="", digest=Digest(one), size=10))
        await announcer.advance(4)
        assert await asked() == [(one, 4, "fetching")]
        assert live.of("fetch", "default", one).done == 4
        assert await asked(msgspec.json.encode([two, one, "sha256:" + "0" * 64])) == [
            (two, 3, "verified"),
            (one, 4, "fetching"),
        ]
        assert await asked(b"no question") == [(one, 4, "fetching")]
        await announcer.verified()
        assert await asked() == []
        unpacking = LayerProgress(chain_id=ChainID(two), blob=Digest(one), done=1)
        await present.publish(progress_subject(unpacking), msgspec.json.encode(unpacking))
        (body,) = await other.signals.gather(progress_now_subject("default"), b"", timeout=0.3)
        (word,) = decode_now(body).works
        assert msgspec.structs.replace(word, worker="") == unpacking and word.worker.startswith("fetcher ")


async def test_a_worker_tells_what_it_has_in_hand_from_the_first_moment_to_the_last(nats_server: NatsServer) -> None:
    order = fetch(7)
    async with NatsPlace(nats_server.url).connect() as bus:
        present = Present(bus.signals, "fetcher", "default", lambda name: None)
        await present.open()

        async def hand() -> list[tuple[str, int, str]]:
            bodies = await bus.signals.gather(progress_now_subject("default"), b"", timeout=0.1)
            return [(each.state, each.attempt, each.error) for body in bodies for each in decode_now(body).works]

        present.began(order, 1)
        assert await hand() == [("waiting", 1, "")]
        present.retrying(order, ValueError("no luck"), 9.0)
        await eventually(lambda: holds(hand(), [("retrying", 1, "no luck")]))
        present.began(order, 2)
        assert await hand() == [("waiting", 2, "no luck")]
        present.ended(fetch(7, revision=2))
        assert await hand() == [("waiting", 2, "no luck")], "another order's end is not this one's"
        present.ended(order)
        assert await hand() == []
        present.began(order, 3)
        assert await hand() == [("waiting", 3, "")]


async def holds(found: Awaitable[object], wanted: object) -> bool:
    return await found == wanted


async def test_a_worker_is_not_led_out_of_its_store(pullonce: Deployment) -> None:
    async with NatsPlace(pullonce.url).connect() as bus:
        question = msgspec.json.encode(["../../../etc/passwd", "sha256:../../x", "", "sha256:" + "a" * 64, "\x00"])
        bodies = await bus.signals.gather(progress_now_subject("default"), question, timeout=0.5)
        assert len(bodies) == 2 and all(decode_now(body).works == () for body in bodies)

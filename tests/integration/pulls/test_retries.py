"""A transient failure is tried again, and everybody who waits or looks can see it: which step, who, attempt n, why."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from pullonce.client import connect
from pullonce.errors import LedgerRefused, ServicesMissing
from pullonce.pulling.listening import PullUpdate
from pullonce.store.content import ContentStore
from schemas.ledger import AskExplain, Explanation, Piece
from schemas.oci import Digest
from schemas.progress import BlobProgress, Progress, PullProgress
from schemas.status import Waiting
from tests.support.buses import eventually
from tests.support.deployment import Deployment
from tests.support.faulty import FaultyRegistry, answers, held_until
from tests.support.images import image, layer, tar_of

LAYER = layer(tar_of({"random": random.Random(3).randbytes(100_000)}))
AT_ONCE = {"Retry-After": "0"}


@pytest.fixture
def pullonce(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "home", environ={"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}, ledger=True).start()
    yield deployment
    deployment.stop()


async def explained(url: str, reference: str, work: str) -> Piece:
    """What the ledger says of one step, as soon as it knows of an attempt that came to nothing."""
    found: list[Piece] = []
    async with connect(url) as client:

        async def known() -> bool:
            try:
                answer = await client.ask(AskExplain(pull=reference), 2.0)  # one that dies takes the question with it
            except (LedgerRefused, ServicesMissing):
                return False
            assert isinstance(answer, Explanation)
            found[:] = [piece for piece in answer.pieces if piece.work == work and piece.attempts]
            return bool(found)

        await eventually(known)
    return found[0]


async def waited_for(url: str, noun: str) -> Waiting:
    """A key that is waited for, once a second attempt at it is under way."""
    found: list[Waiting] = []
    async with connect(url) as client:

        async def second() -> bool:
            waiting = [each for flight in (await client.status()).flights for each in flight.waiting]
            found[:] = [each for each in waiting if each.key.startswith(f"{noun}.") and each.attempt == 2]
            return bool(found)

        await eventually(second)
    return found[0]


async def kill_the_ledger(url: str) -> None:
    """It is started again by whoever supervises it."""
    async with connect(url) as client:
        (pid,) = {pong.pid for pong in await client.ping() if pong.service == "ledger"}
    os.kill(pid, signal.SIGKILL)


def heard(told: list[PullUpdate], kind: type[Progress], work: str = "") -> list[tuple[str, int, bool]]:
    """State, attempt and whether a reason was given, of the words about one step, each as often as it changed."""
    words = [each for each in told if isinstance(each, kind) and getattr(each, "work", "") == work]
    said = [(each.state, each.attempt, bool(each.error)) for each in words if each.attempt > 1 or each.error]  # type: ignore[attr-defined]
    return [each for each, _ in groupby(said)]


async def test_every_step_that_is_tried_again_says_so_to_all_who_wait_and_look(pullonce: Deployment) -> None:
    resolving, fetching = asyncio.Event(), asyncio.Event()
    async with FaultyRegistry(image([LAYER])) as registry, connect(pullonce.url) as client:
        registry.plan("HEAD", answers(429, headers=AT_ONCE))
        registry.plan("HEAD", held_until(resolving))
        registry.plan(LAYER.digest, answers(503, "UNAVAILABLE", "over capacity", AT_ONCE))
        registry.plan(LAYER.digest, held_until(fetching))
        told: list[PullUpdate] = []
        late: list[PullUpdate] = []
        pull = asyncio.create_task(client.pull(registry.reference, timeout=60, progress=told.append))
        try:
            waiting = await waited_for(pullonce.url, "resolve")
            assert waiting.state == "ordered" and "answers 429" in waiting.error
            assert waiting.worker.startswith("fetcher ") and waiting.worker.endswith(f" on {socket.gethostname()}")
            piece = await explained(pullonce.url, registry.reference, "resolve")
            assert (piece.state, piece.attempts, piece.worker, piece.doing) == ("ordered", 1, waiting.worker, "working")
            assert "answers 429" in piece.error and piece.working is not None and piece.working >= 0
            await kill_the_ledger(pullonce.url)
            again = await explained(pullonce.url, registry.reference, "resolve")
            assert (again.attempts, again.worker, again.working, again.error) == (1, piece.worker, piece.working, piece.error)
            joining = asyncio.create_task(client.pull(registry.reference, timeout=60, progress=late.append))

            async def joined() -> bool:
                return heard(late, PullProgress, "resolve") == [("working", 2, True)]

            await eventually(joined)
            resolving.set()

            waiting = await waited_for(pullonce.url, "blob")
            assert "503: over capacity" in waiting.error
            piece = await explained(pullonce.url, registry.reference, "fetch")
            assert (piece.attempts, piece.worker) == (1, waiting.worker) and piece.holder.startswith("coordinator-")
            ran = [await asyncio.to_thread(pullonce.run, *words) for words in (("status",), ("explain", registry.reference))]
            shown = "".join(each.stdout for each in ran)
            assert f"at {waiting.worker}, attempt 2" in shown and "503: over capacity" in shown
            assert f"attempt 2 by {waiting.worker} since" in shown

            # What was resolved is lost before the image is listed, and the registry does not give it again at once.
            manifest = Digest(registry.image.digest)
            ContentStore(pullonce.store).blob_path(manifest).unlink()
            registry.plan(f"GET /v2/app/manifests/{manifest}", answers(503, "UNAVAILABLE", "over capacity", AT_ONCE))
            fetching.set()
            await asyncio.gather(pull, joining)
        finally:
            resolving.set()
            fetching.set()
    assert heard(told, PullProgress, "resolve") == [("retrying", 1, True), ("working", 2, True)]
    assert heard(told, PullProgress, "record") == [("retrying", 1, True), ("working", 2, True)]
    blob = heard(told, BlobProgress)
    assert ("retrying", 1, True) in blob and ("fetching", 2, True) in blob
    assert len(registry.asked("HEAD")) == 2
    assert json.loads(pullonce.run("status", "--json").stdout).get("flights", []) == []

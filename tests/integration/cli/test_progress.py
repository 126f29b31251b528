"""What `pullonce pull` shows of progress on a terminal, by words of scripted services: plain, and over TLS with a key."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.json import encode

from schemas.events import BlobFetched, LayerUnpacked, PullRequested, PullResolved, ResolvedLayer, Source
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.progress import BlobProgress, LayerProgress, ProgressNow
from schemas.routing import progress_subject
from schemas.subjects import progress_now_subject
from tests.support.entrances import Entrance
from tests.support.screen import Terminal
from tests.support.scripted import Script, completed, identify_request

ONE, TWO = (Digest(f"sha256:{each * 64}") for each in "12")
SIZE = 1_000_000


def resolved(request: PullRequested, opened: int) -> PullResolved:
    identity = identify_request(request)
    manifest = Descriptor(media_type="x", digest=ONE, size=1)
    return PullResolved(
        reference=identity.reference,
        flight=identity.flight,
        opened=opened,
        platform="linux/amd64",
        source=Source("docker.io", "library/redis"),
        digest=ONE,
        manifest=manifest,
        config=manifest,
        layers=tuple(
            ResolvedLayer(blob=Descriptor(media_type="x", digest=each, size=SIZE), diff_id=DiffID(each), chain_id=ChainID(each))
            for each in (ONE, TWO)
        ),
    )


@asynccontextmanager
async def waiting(entrance: Entrance) -> AsyncIterator[Script]:
    async with entrance.scripted() as script:
        script.answer = lambda request, sequence: None
        yield script


def started(entrance: Entrance) -> Terminal:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")}
    command = [sys.executable, "-m", "pullonce", "pull", "redis"]
    return Terminal(command, environ | entrance.environ | {"PULLONCE_HOME": "/nonexistent"})


async def shown(terminal: Terminal, *what: str) -> None:
    """Wait until the first rows say this."""

    def holds(lines: list[str]) -> bool:
        return len(lines) >= len(what) and all(text in line for text, line in zip(what, lines, strict=False))

    await asyncio.to_thread(terminal.until, holds)


async def test_bars_follow_what_workers_say(entrance: Entrance) -> None:
    async with waiting(entrance) as script:
        terminal = started(entrance)
        try:
            await script.until(lambda: bool(script.requests))
            sequence, request = script.requests[0]
            await script.say(resolved(request, sequence))
            await shown(terminal, "111111111111  waiting", "222222222222  waiting")
            for done in (300_000, 700_000):
                word = BlobProgress(digest=TWO, done=done, size=1_000_000)
                await script.bus.signals.publish(progress_subject(word), encode(word))
            await shown(terminal, "waiting", "222222222222  fetching")
            await script.say(BlobFetched(digest=TWO, size=1_000_000, revision=1))
            await script.say(LayerUnpacked(chain_id=ChainID(TWO), diff_id=DiffID(TWO), revision=2))
            await shown(terminal, "waiting", "222222222222  unpacked")
            await script.say(completed(request, sequence))
            assert await asyncio.to_thread(terminal.end) == 0
        finally:
            terminal.close()


async def test_who_joins_late_is_shown_how_far_it_is(entrance: Entrance) -> None:
    """It was resolved before, one layer is done, and another one under way: nobody says any of it again unasked."""
    works = (
        BlobProgress(digest=ONE, done=1_000_000, size=1_000_000, state="verified"),
        LayerProgress(chain_id=ChainID(ONE), blob=ONE, done=1, state="committed"),
        BlobProgress(digest=TWO, done=400_000, size=1_000_000),
    )
    async with waiting(entrance) as script:
        await script.say(resolved(PullRequested(reference="redis"), 1))
        await script.bus.signals.answer(progress_now_subject("default"), lambda question: encode(ProgressNow(works=works)))
        terminal = started(entrance)
        try:
            await shown(terminal, "111111111111  unpacked", "222222222222  fetching")
            sequence, request = script.requests[0]
            entrance.server.restart()
            await script.say(completed(request, sequence))
            assert await asyncio.to_thread(terminal.end) == 0
        finally:
            terminal.close()

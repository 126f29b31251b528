"""A tiny stand-in for all services: answers pings, and ends every pull as the test says. The bus below it is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pullonce.bus.nats.bus import connect
from pullonce.bus.ports import Bus, Recorded
from pullonce.config import BusSettings
from pullonce.process.runtime import answer_pings
from pullonce.pulling.identity import identify_request
from schemas.events import Event, PullCancelled, PullCompleted, PullFailed, PullRequested, Sharing
from schemas.oci import ChainID, Digest

DIGEST = Digest("sha256:" + "a" * 64)
IMAGE_ID = Digest("sha256:" + "b" * 64)
CHAIN = ChainID("sha256:" + "c" * 64)


class Script:
    """What happened, and what to say to it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.answer: Callable[[PullRequested, int], Event | None] = completed
        """Ending for a request at a sequence; None leaves it in flight."""
        self.requests: list[tuple[int, PullRequested]] = []
        self.cancelled: list[PullCancelled] = []
        self.changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def apply(self, recorded: Recorded) -> None:
        """Fold one event of the log."""
        match recorded.event:
            case PullRequested() as request:
                self.requests.append((recorded.sequence, request))
                if ending := self.answer(request, recorded.sequence):
                    self._spawn(self.say(ending))
            case PullCancelled() as cancelled:
                self.cancelled.append(cancelled)
        self._spawn(self._notify())

    async def say(self, event: Event) -> None:
        """Append an event."""
        await self.bus.log.append(event)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something has happened."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(holds)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def completed(request: PullRequested, sequence: int) -> PullCompleted:
    """A good ending for everybody up to and with this request."""
    identity = identify_request(request)
    return PullCompleted(
        store=request.store,
        reference=identity.reference,
        flight=identity.flight,
        opened=sequence,
        covers=sequence + 1,
        platform="linux/amd64",
        digest=DIGEST,
        manifest=DIGEST,
        image_id=IMAGE_ID,
        chain_id=CHAIN,
        layers=2,
        size=1000,
        sharing=Sharing(requests=1, fetched=2, fetched_bytes=40_100_000, reused=1, unpacked=2),
    )


def failed(request: PullRequested, sequence: int) -> PullFailed:
    """A bad ending for everybody up to and with this request."""
    identity = identify_request(request)
    return PullFailed(
        store=request.store,
        reference=identity.reference,
        flight=identity.flight,
        opened=sequence,
        covers=sequence + 1,
        code="MANIFEST_UNKNOWN",
        message="the registry has no manifest of that name; check the tag",
    )


PARTS = (("coordinator", ""), ("fetcher", "default"), ("unpacker", "default"))


@asynccontextmanager
async def scripted(bus: str | BusSettings, parts: tuple[tuple[str, str], ...] = PARTS) -> AsyncIterator[Script]:
    """A script that runs on a bus (its address, or how to reach it) and answers pings for `parts` (service, store)."""
    settings = BusSettings(url=bus, name="script") if isinstance(bus, str) else bus
    async with connect(settings) as connection:
        script = Script(connection)
        for service, store in parts:
            await answer_pings(connection.signals, service, store)
        follower = asyncio.create_task(connection.log.follow(script.apply))
        try:
            yield script
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

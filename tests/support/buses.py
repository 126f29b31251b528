"""Places to connect to: a NATS server or the memory twin, alike for tests; and small helpers to watch a bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from msgspec import structs

from pullonce.bus.memory.bus import MemoryBus
from pullonce.bus.nats.bus import connect
from pullonce.bus.ports import Bus, Delivery, Recorded
from pullonce.config import BusSettings
from schemas.events import BlobFetched, BlobLost, Source
from schemas.oci import Descriptor, Digest
from schemas.orders import FetchBlob

T = TypeVar("T")

ACK_WAIT = 1.0
LIMIT = 20.0
"""Seconds after which a test that waits for something has failed."""


class Place(Protocol):
    """Somewhere several users connect to and share one bus."""

    def connect(self) -> Any: ...


class NatsPlace:
    def __init__(self, url: str, ack_wait: float = ACK_WAIT) -> None:
        self.settings = BusSettings(url=url, name="test", ack_wait=ack_wait)

    def connect(self) -> Any:
        return connect(self.settings, patience=LIMIT)


class MemoryPlace:
    def __init__(self) -> None:
        self._bus: MemoryBus | None = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Bus]:
        self._bus = self._bus or MemoryBus(ack_wait=ACK_WAIT)
        yield self._bus


class Reader:
    """Follows a log in the background and keeps what it read."""

    def __init__(self, bus: Bus, start: int = 1) -> None:
        self.read: list[Recorded] = []
        self.idle = 0
        self._changed = asyncio.Event()
        self.task = asyncio.ensure_future(bus.log.follow(self._apply, start=start, idle=self._on_idle))
        self.task.add_done_callback(lambda _: self._changed.set())

    def _apply(self, recorded: Recorded) -> None:
        self.read.append(recorded)
        self._changed.set()

    def _on_idle(self) -> None:
        self.idle += 1
        self._changed.set()

    @property
    def sequences(self) -> list[int]:
        return [each.sequence for each in self.read]

    async def until(self, true: Callable[[Reader], bool]) -> None:
        """Wait until what was read makes `true` true; fails with the follower's own error if it ends."""
        async with asyncio.timeout(LIMIT):
            while not true(self):
                if self.task.done():
                    self.task.result()
                self._changed.clear()
                await self._changed.wait()

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await ended(self.task)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run something endless beside the body of a `with`."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        await ended(task)


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; an error of its own propagates."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


async def soon(awaitable: Awaitable[T]) -> T:
    """Wait, but not for ever."""
    return await asyncio.wait_for(awaitable, LIMIT)


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is true: for what happens in the server by time alone, and is announced by nothing."""
    async with asyncio.timeout(LIMIT):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def leases_pass(bus: Bus, count: int = 2) -> None:
    """Return when an order that somebody took and said nothing of was handed out anew so many times: for tests that show what
    does not happen meanwhile. Whoever was silent since before has lost what they took as often."""
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    async with running(bus.orders.receive("fetch.blob", "forgetful", taken.put, limit=1)):
        await bus.orders.send(structs.replace(fetch(0), store="forgetful"))
        for attempt in range(1, count + 2):
            delivery = await soon(taken.get())
            assert delivery.attempt == attempt
        await delivery.ack()


def digest(number: int) -> Digest:
    return Digest(f"sha256:{number:064x}")


def fetched(number: int, revision: int = 1) -> BlobFetched:
    """A fact with a message id."""
    return BlobFetched(digest=digest(number), size=number, revision=revision)


def lost(number: int) -> BlobLost:
    """A fact without one."""
    return BlobLost(digest=digest(number))


def fetch(number: int, revision: int = 1) -> FetchBlob:
    """An order."""
    blob = Descriptor(media_type="application/octet-stream", digest=digest(number), size=number)
    return FetchBlob(revision=revision, blob=blob, source=Source("registry.invalid", "some/image"))

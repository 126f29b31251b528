"""How much is asked for at a time: so many from each registry, and so many that bring bytes from all of them.

A registry that says nothing holds its own slots, and nobody else's. A transfer that brings next to nothing costs next to
nothing: it gives its share back to others until it comes on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Slots:
    """One registry's slots, kept while anybody uses or awaits one."""

    free: asyncio.Semaphore
    users: int = 0


class Slots:
    """So many at a time for each registry; those for others do not wait.

    Args:
        each: how many.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._doors: dict[str, _Slots] = {}

    @asynccontextmanager
    async def of(self, registry: str) -> AsyncIterator[None]:
        """Hold one of a registry's slots, once it is free."""
        door = self._doors.get(registry) or self._doors.setdefault(registry, _Slots(asyncio.Semaphore(self._each)))
        door.users += 1
        try:
            async with door.free:
                yield
        finally:
            door.users -= 1
            if not door.users:
                self._doors.pop(registry, None)


@dataclass(slots=True)
class Share:
    """One transfer's part of what may come in at a time. Made by `Shares`."""

    free: asyncio.Semaphore
    slow: float
    """Bytes in one interval below which it is lent to others."""
    held: bool = True
    came: int = 0
    """Bytes since the last look."""
    wanted: bool = False
    """It was lent, and the transfer comes on again."""
    timer: asyncio.TimerHandle | None = None
    """Of the next look."""

    async def took(self, count: int) -> None:
        """So many bytes have come; waits for a share where it was lent and is needed again."""
        self.came += count
        if self.wanted:
            await self.free.acquire()
            self.held, self.wanted = True, False

    def look(self) -> None:
        """Lend it or want it back, by what has come since the last look."""
        slow, self.came = self.came < self.slow, 0
        if self.held and slow:
            self.free.release()
            self.held = False
        elif not self.held:
            self.wanted = not slow


class Shares:
    """So many transfers at a time that bring bytes.

    Args:
        most: how many.
        rate: bytes a second below which one does not count.
        interval: seconds between looks at each.
    """

    def __init__(self, most: int, *, rate: float, interval: float = 2.0) -> None:
        self._free = asyncio.Semaphore(most)
        self._slow = rate * interval
        self._interval = interval

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Share]:
        """A share, once there is one."""
        await self._free.acquire()
        share = Share(self._free, self._slow)
        self._look_later(share)
        try:
            yield share
        finally:
            if share.timer is not None:
                share.timer.cancel()
            if share.held:
                self._free.release()

    def _look_later(self, share: Share) -> None:
        """Look at a transfer now and then. A timer: a task for each of many small blobs would cost more than they do."""

        def look() -> None:
            share.look()
            self._look_later(share)

        share.timer = asyncio.get_running_loop().call_later(self._interval, look)

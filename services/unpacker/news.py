"""Who waits for a blob or a layer, and the messages of the bus that say it is time to look.

One subscription each for all progress, blob and layer messages of the store; events pass by as they are published. Nothing is
believed: whoever is woken looks at the disk. After a reconnection everybody looks.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pullonce.bus.ports import Signals
from schemas.subjects import digest_token, progress_filter


class Watch:
    """One who waits."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.failed = False
        """Whoever was to bring it has given up."""

    def wake(self) -> None:
        """There may be something new to see."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until there may be something new to see since the last call."""
        await self._changed.wait()
        self._changed.clear()


class News:
    """All who wait in this process."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._watches: dict[tuple[str, str], set[Watch]] = {}

    async def open(self, signals: Signals) -> None:
        """Listen from now on; returns once the server knows."""
        signals.on_reconnect(self._wake_all)
        await signals.subscribe(progress_filter(self._store), self._receive)
        for noun in ("blob", "layer"):
            await signals.subscribe(f"{noun}.*.{self._store}.*", self._receive)

    @contextmanager
    def watch(self, noun: str, name: str) -> Iterator[Watch]:
        """Wait for a `blob` or a `layer` by its digest or ChainID. Register first, then look at the disk."""
        key = (noun, digest_token(name))
        watch = Watch()
        self._watches.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[key]
            watches.discard(watch)
            if not watches:
                del self._watches[key]

    def has(self, name: str) -> bool:
        """Whether anybody waits for a blob or a layer."""
        return any(token == digest_token(name) for _, token in self._watches)

    def tell(self, noun: str, name: str) -> None:
        """Wake those who wait for something that this process itself has brought about."""
        self._wake(noun, digest_token(name), failed=False)

    def _receive(self, subject: str, body: bytes) -> None:
        noun, verbed, *_, token = subject.split(".")
        if noun == "progress":
            self._wake("blob", token, failed=False)
        elif verbed != "claimed":  # that is before there is anything to see
            self._wake(noun, token, failed=verbed == "failed")

    def _wake(self, noun: str, token: str, *, failed: bool) -> None:
        for watch in self._watches.get((noun, token), ()):
            watch.failed = watch.failed or failed
            watch.wake()

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()

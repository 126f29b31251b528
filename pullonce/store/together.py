"""Small blobs that become durable and visible together: what is ready while the disk syncs is synced next, all in one go.

For each blob the order stays: its bytes, their sync, its name, the sync of its name; whoever waits for it waits for all four.
But the disk is given the bytes of all before it syncs the first, and one sync of the directory covers all names. A journal
writes down once what it would otherwise write down twice for each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pullonce.store.growing import GrowingFile

_MOST = 64
"""Blobs that wait for each other: the first of them for the syncs of all."""


@dataclass(slots=True)
class _Ready:
    """One blob, and who waits for it."""

    file: GrowingFile
    final: Path
    batch: list[bytes]
    waiting: asyncio.Future[None]
    error: BaseException | None = None


class Together:
    """Publishes what is ready. Any number of event loops may ask; one thread is at it at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: list[_Ready] = []
        self._busy = False

    def publish(self, file: GrowingFile, final: Path, batch: list[bytes]) -> asyncio.Future[None]:
        """Append the last bytes of a blob, verify it, and make it visible under its final name once it is on the disk.

        The future is done when nobody is at the file any more, whatever became of whoever waits for it. It raises `Unverified`,
        or `Permanent` where the disk refuses.
        """
        loop = asyncio.get_running_loop()
        ready = _Ready(file, final, batch, loop.create_future())
        with self._lock:
            self._ready.append(ready)
            begin, self._busy = not self._busy, True
        if begin:
            try:
                loop.run_in_executor(None, self._work)
            except BaseException:
                with self._lock:
                    self._busy = False
                    self._ready.remove(ready)
                raise
        return ready.waiting

    def _work(self) -> None:
        """In a thread, until nothing is ready any more."""
        while True:
            with self._lock:
                some, self._ready = self._ready[:_MOST], self._ready[_MOST:]
                self._busy = bool(some)
            if not some:
                return
            publish_all(some)
            for loop in {each.waiting.get_loop() for each in some}:
                with suppress(RuntimeError):  # it is closed: nobody waits there any more
                    loop.call_soon_threadsafe(_tell, [each for each in some if each.waiting.get_loop() is loop])


def publish_all(some: Sequence[_Ready]) -> None:
    """Publish some blobs; what went wrong with one is its `error`, and nobody else's."""
    left = _each(some, lambda each: each.file.complete(each.batch))
    left = _each(left, lambda each: each.file.sync())
    left = _each(left, lambda each: each.file.rename(each.final))
    for directory in {each.final.parent for each in left}:
        named = [each for each in left if each.final.parent == directory]
        try:
            named[0].file.sync_names(directory)
        except BaseException as exc:
            for each in named:
                each.error = exc


def _each(some: Sequence[_Ready], step: Callable[[_Ready], None]) -> list[_Ready]:
    """Take one step with each; those with whom it went well."""
    for each in some:
        try:
            step(each)
        except BaseException as exc:
            each.error = exc
    return [each for each in some if each.error is None]


def _tell(some: Sequence[_Ready]) -> None:
    for each in some:
        if each.waiting.cancelled():
            continue
        if each.error is None:
            each.waiting.set_result(None)
        else:
            each.waiting.set_exception(each.error)
            each.waiting.exception()  # looked at: it may be that nobody waits for it any more

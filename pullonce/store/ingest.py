"""A blob on its way into the store: one writer at a time, continued after a crash, visible to others only when verified.

Bytes are collected to batches of 1 MB; a thread writes and hashes a batch while the event loop receives the next one. A small
blob is held until it is complete, and published together with others (`together`).
"""

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pullonce.errors import Permanent, Retryable
from pullonce.store.disk import disk_errors
from pullonce.store.growing import SMALL, GrowingFile, Unverified
from pullonce.store.together import Together
from schemas.oci import Descriptor

_BATCH = 1 << 20
_LOOK = 0.05
"""Seconds between looks at a lock that is not waited for to the end."""
_INTERVAL = 0.1
"""Seconds after which a smaller batch is written too: on a slow line, whoever follows the file would wait long for 1 MB."""


class Ingest:
    """One attempt at a blob. Made by `ContentStore.ingest`; valid inside its context only.

    Attributes:
        present: the blob is complete and visible: there before, or committed.
        offset: bytes that were accepted; the next one to fetch.
        small: nobody need follow it: it is written when all of it has come.
    """

    def __init__(self, file: GrowingFile, final: Path, blob: Descriptor, together: Together) -> None:
        self.present = final.exists()
        self.offset = 0
        self.small = blob.size <= SMALL
        self._together = together
        self._file = file
        self._final = final
        self._blob = blob
        self._inherited = 0
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._running: asyncio.Future[None] | None = None
        self._started = asyncio.get_running_loop().time() if self.small else 0.0

    @property
    def stored(self) -> int:
        """Bytes in the growing file, readable by others."""
        return self._file.stored

    async def write(self, chunk: bytes) -> None:
        """Append bytes. Returns as soon as they are accepted; a batch of an earlier call may still be on its way to the disk.

        Raises:
            Permanent: `size.mismatch` where the blob grows longer than its descriptor says; or the disk refuses.
        """
        if self.offset + len(chunk) > self._blob.size:
            await self.restart()  # nothing of such a source is worth keeping
            raise self._wrong_size(f"more than the {self._blob.size} bytes that its descriptor says")
        self.offset += len(chunk)
        self._pending.append(chunk)
        self._pending_size += len(chunk)
        if self._pending_size >= _BATCH or self._started + _INTERVAL < asyncio.get_running_loop().time():
            await self._write_pending()

    async def flush(self) -> None:
        """Wait until every accepted byte is in the growing file, or none where they have proved to be no part of the blob."""
        try:
            await self._write_pending()
            await self._settled()
        except Unverified:  # of a publication whose waiter was cancelled
            await self.restart()

    async def restart(self) -> None:
        """Drop everything that was written and begin again at offset 0."""
        self._pending, self._pending_size = [], 0
        await self._settled()
        await self._in_thread(self._file.empty)  # a disk that is writing what is dropped makes this wait
        self.offset = self._inherited = 0

    async def commit(self) -> None:
        """Verify size and digest, sync, and make the blob visible.

        Raises:
            Permanent: `size.mismatch` or `digest.mismatch`: the source does not hold what the descriptor promises.
            Retryable: the same, where part of it came from an earlier attempt and may be to blame; it was dropped.
        """
        await (self._settled() if self.small else self.flush())
        if self.offset != self._blob.size:
            raise self._wrong_size(f"{self.offset} bytes instead of {self._blob.size}")
        if self.small:
            await self._publish_together()
        elif not self._file.verifier.verified():
            await self._refuse()
        else:
            await self._in_thread(lambda: self._file.publish(self._final))
        self.present = True

    async def take_over(self) -> None:
        """Go on behind what an earlier attempt left. Raises Permanent (`disk.full`) where the rest has no room."""
        if self.small and self._file.empty_yet:
            return  # what is written at once asks for its room at once
        await self._in_thread(self._file.take_over)
        self.offset = self._inherited = self._file.stored
        await self._in_thread(self._file.reserve)

    async def close(self) -> None:
        """Give up the lock. What was accepted stays in the growing file for the next attempt."""
        try:
            if not self.present:
                with suppress(Permanent):
                    await self.flush()
        finally:
            # A thread must be done with the file before its descriptor may stand for another one.
            if self._running is not None and not self._running.done():
                self._running.add_done_callback(lambda _: self._file.close())
            else:
                self._file.close()

    async def _write_pending(self) -> None:
        await self._settled()
        if self._pending:
            batch, self._pending, self._pending_size = self._pending, [], 0
            self._start(lambda: self._file.append(batch))

    async def _publish_together(self) -> None:
        batch, self._pending, self._pending_size = self._pending, [], 0
        self._running = self._together.publish(self._file, self._final, batch)
        try:
            await self._settled()
        except Unverified:
            await self._refuse()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        self._start(work)
        await self._settled()

    def _start(self, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(None, work)
        self._started = loop.time()

    async def _settled(self) -> None:
        """Wait for the work in flight; a cancelled waiter leaves it running, since a thread cannot be stopped."""
        if (running := self._running) is not None:
            try:
                await asyncio.shield(running)
            finally:
                if running.done():
                    self._running = None

    async def _refuse(self) -> None:
        actual, inherited = self._file.verifier.actual(), self._inherited
        await self.restart()
        message = f"what the source sends as {self._blob.digest} has the digest {actual}"
        if inherited:
            # After a power cut the file may be longer than what reached the disk. Only a fresh attempt can tell.
            raise Retryable(f"{message}; dropped, since part of it was an earlier attempt's", code="digest.mismatch", after=0.0)
        raise Permanent(message, code="digest.mismatch")

    def _wrong_size(self, what: str) -> Permanent:
        return Permanent(f"the source sends {what} for {self._blob.digest}", code="size.mismatch")


@asynccontextmanager
async def ingesting(
    growing: Path, final: Path, blob: Descriptor, *, sync: bool, together: Together, wait: float | None = None
) -> AsyncIterator[Ingest]:
    """See `ContentStore.ingest`."""
    async with asyncio.timeout(wait):
        with disk_errors(growing, blob.size):
            file = await _open(growing, final, blob, sync=sync, poll=wait is not None)
    ingest = Ingest(file, final, blob, together)
    try:
        if not ingest.present:
            await ingest.take_over()
        yield ingest
    finally:
        await ingest.close()


async def _open(growing: Path, final: Path, blob: Descriptor, *, sync: bool, poll: bool) -> GrowingFile:
    """Take the lock, then look: whoever held it may have completed the blob, or removed the file."""
    while True:
        file = GrowingFile(await _open_locked(growing, poll=poll), growing, blob, sync=sync)
        if final.exists():
            growing.unlink(missing_ok=True)
            return file
        if file.still_named():
            return file
        file.close()


async def _open_locked(path: Path, *, poll: bool) -> int:
    """Open (or make) a file and take its exclusive lock.

    Args:
        poll: look now and then, rather than have a thread wait, which nothing could call back.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        held = _lock(fd)
        while poll and not held:
            await asyncio.sleep(_LOOK)
            held = _lock(fd)
    except BaseException:
        os.close(fd)
        raise
    if not held:
        await _wait_for_lock(fd)
    return fd


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait_for_lock(fd: int) -> None:
    """Wait for a lock in a thread of its own: in the shared pool, waiters could take every thread that the holder needs.

    Closes the file where it is left without the lock.
    """
    loop = asyncio.get_running_loop()
    locked: asyncio.Future[None] = loop.create_future()

    def settle(error: OSError | None) -> None:
        if locked.cancelled():
            os.close(fd)
        elif error is not None:
            locked.set_exception(error)
        else:
            locked.set_result(None)

    def wait() -> None:
        error: OSError | None = None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as exc:
            error = exc
        try:
            loop.call_soon_threadsafe(settle, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            os.close(fd)

    threading.Thread(target=wait, name="ingest-lock", daemon=True).start()
    try:
        await locked
    except BaseException:
        # Cancelled while the thread still waits: `settle` closes. Cancelled just after it had the lock: nobody else does.
        if not locked.cancelled():
            os.close(fd)
        raise

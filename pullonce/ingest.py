"""The growing file of one blob: one writer at a time, continued after a crash, visible to others only when verified.

Bytes are collected to batches of 1 MB; a thread writes and hashes a batch while the event loop receives the next one. The
size of the file is the number of bytes that a follower may read.
"""

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pullonce.disk import disk_errors, disk_full, free_bytes, sync_directory
from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import Verifier
from schemas.oci import Descriptor

_BATCH = 1 << 20
_INTERVAL = 0.1
"""Seconds after which a smaller batch is written too: on a slow line, whoever follows the file would wait long for 1 MB."""


class Ingest:
    """A blob on its way in. Made by `ContentStore.ingest`; valid inside its context only.

    Attributes:
        present: the blob is complete and visible: there before, or committed.
        offset: bytes that were accepted; the next one to fetch.
        stored: bytes in the growing file, readable by others.
    """

    def __init__(self, growing: Path, final: Path, blob: Descriptor, *, sync: bool) -> None:
        self.present = False
        self.offset = 0
        self.stored = 0
        self._growing = growing
        self._final = final
        self._blob = blob
        self._sync = sync
        self._fd = -1
        self._verifier = Verifier(blob.digest)
        self._inherited = 0
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._running: asyncio.Future[None] | None = None
        self._started = 0.0

    async def open(self) -> None:
        """Take the lock, then look: the blob may have been completed by whoever held it."""
        while True:
            self._fd = await _open_locked(self._growing)
            if self._final.exists():
                self.present = True
                self._growing.unlink(missing_ok=True)
                return
            if _still_named(self._fd, self._growing):
                break
            os.close(self._fd)
            self._fd = -1
        await self._in_thread(self._continue)
        missing = self._blob.size - self.offset
        if missing > free_bytes(self._growing):
            raise disk_full(self._growing, missing)

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
        """Wait until every accepted byte is in the growing file."""
        await self._write_pending()
        await self._written()

    async def restart(self) -> None:
        """Drop everything that was written and begin again at offset 0."""
        self._pending, self._pending_size = [], 0
        await self._written()
        os.ftruncate(self._fd, 0)
        self._verifier = Verifier(self._blob.digest)
        self.offset = self.stored = self._inherited = 0

    async def commit(self) -> None:
        """Verify size and digest, sync, and make the blob visible.

        Raises:
            Permanent: `size.mismatch` or `digest.mismatch`: the source does not hold what the descriptor promises.
            Retryable: the same, where part of it came from an earlier attempt and may be to blame; it was dropped.
        """
        await self.flush()
        if self.offset != self._blob.size:
            raise self._wrong_size(f"{self.offset} bytes instead of {self._blob.size}")
        if not self._verifier.verified():
            await self._refuse()
        await self._in_thread(self._publish)
        self.present = True

    async def close(self) -> None:
        """Give up the lock. What was accepted stays in the growing file for the next attempt."""
        try:
            if not self.present:
                with suppress(Permanent):
                    await self.flush()
        finally:
            # The thread must be done with the descriptor before its number may be used for another file.
            if self._running is not None and not self._running.done():
                self._running.add_done_callback(lambda _, fd=self._fd: os.close(fd))  # type: ignore[misc]
            elif self._fd >= 0:
                os.close(self._fd)

    # -- below: what happens in a thread, one thing at a time --

    async def _write_pending(self) -> None:
        await self._written()
        if self._pending:
            batch, self._pending, self._pending_size = self._pending, [], 0
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(None, self._write_batch, batch)
            self._started = loop.time()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        self._running = asyncio.get_running_loop().run_in_executor(None, work)
        await self._written()

    async def _written(self) -> None:
        """Wait for the work in flight; a cancelled waiter leaves it running, since a thread cannot be stopped."""
        if self._running is not None:
            await asyncio.shield(self._running)
            self._running = None

    def _write_batch(self, batch: list[bytes]) -> None:
        data = b"".join(batch) if len(batch) > 1 else batch[0]
        with disk_errors(self._growing, self._blob.size - self.stored):
            view = memoryview(data)
            position = self.stored
            while view:
                written = os.pwrite(self._fd, view, position)
                position += written
                view = view[written:]
        self._verifier.update(data)
        self.stored = position

    def _continue(self) -> None:
        """Take over what an earlier attempt left. Longer than the blob can only be rubbish."""
        size = os.fstat(self._fd).st_size
        if size > self._blob.size:
            os.ftruncate(self._fd, 0)
            return
        position = 0
        while position < size and (chunk := os.pread(self._fd, _BATCH, position)):
            self._verifier.update(chunk)
            position += len(chunk)
        self.offset = self.stored = self._inherited = position

    def _publish(self) -> None:
        with disk_errors(self._final, self._blob.size):
            if self._sync:
                os.fsync(self._fd)
            self._final.parent.mkdir(exist_ok=True)  # the first blob of its digest algorithm
            self._growing.rename(self._final)
            if self._sync:
                sync_directory(self._final.parent)

    async def _refuse(self) -> None:
        actual, inherited = self._verifier.actual(), self._inherited
        await self.restart()
        message = f"what the source sends as {self._blob.digest} has the digest {actual}"
        if inherited:
            # After a power cut the file may be longer than what reached the disk. Only a fresh attempt can tell.
            raise Retryable(f"{message}; dropped, since part of it was an earlier attempt's", code="digest.mismatch", after=0.0)
        raise Permanent(message, code="digest.mismatch")

    def _wrong_size(self, what: str) -> Permanent:
        return Permanent(f"the source sends {what} for {self._blob.digest}", code="size.mismatch")


@asynccontextmanager
async def ingesting(growing: Path, final: Path, blob: Descriptor, *, sync: bool) -> AsyncIterator[Ingest]:
    """See `ContentStore.ingest`."""
    ingest = Ingest(growing, final, blob, sync=sync)
    try:
        with disk_errors(growing, blob.size):
            await ingest.open()
        yield ingest
    finally:
        await ingest.close()


def _still_named(fd: int, path: Path) -> bool:
    """Whether the open file is the one that bears the name: whoever held the lock before may have renamed or removed it."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


async def _open_locked(path: Path) -> int:
    """Open (or make) a file and take its exclusive lock."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        await _wait_for_lock(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _wait_for_lock(fd: int) -> None:
    """Wait for a lock in a thread of its own: in the shared pool, waiters could take every thread that the holder needs."""
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

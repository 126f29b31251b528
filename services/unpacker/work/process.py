"""A worker process: unpacks one layer after another, as told over the socket it was started with.

Three threads share a job, all mostly outside the interpreter's lock: one reads and inflates, one hashes, one makes files. The
process dies with the service that started it.
"""

import ctypes
import errno
import hashlib
import os
import queue
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pullonce.store.disk import inodes_are_used_up
from services.unpacker.tar.archive import Archive
from services.unpacker.tar.compression import chunks, hashed
from services.unpacker.tar.invalid import LayerError
from services.unpacker.tree.layer import Layer
from services.unpacker.tree.outcome import Outcome
from services.unpacker.tree.rights import Rights
from services.unpacker.work import messages
from services.unpacker.work.follow import Follow, Stale
from services.unpacker.work.messages import Failed, Grown, Job, Starving, Unpacked, Working

_AHEAD = 8
"""Chunks of at most 1 MB that may wait for the next thread."""
_REPORT_EVERY = 0.2
"""Seconds between two reports of progress."""
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 256 << 20
"""Bytes of freed memory that malloc keeps: far more than the chunks of a job, some 20 MB."""


class WrongDiffID(LayerError):
    """The layer is a well-formed tar, but not the one the image's config speaks of."""

    code = "diffid.mismatch"


class Abandoned(Exception):
    """Nobody wants the bytes any more that were being waited for."""


class NoInodes(Exception):
    """The file system has no inode left.

    Attributes:
        entries: of the layer that were seen by then.
    """

    def __init__(self, entries: int) -> None:
        super().__init__(entries)
        self.entries = entries


class Line:
    """The socket to the service. Used by one thread at a time, `abandon` by any."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._abandoned = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._reported = 0.0

    def receive(self) -> Job | Grown:
        """The next message. Ends the process when the service is gone."""
        while (end := self._received.find(b"\n")) < 0:
            self._fill()
        text = bytes(self._received[:end])
        del self._received[: end + 1]
        return messages.order(text)

    def send(self, report: messages.Report) -> None:
        self._connection.sendall(messages.line(report))

    def job(self) -> Job:
        """The next job. Word of an earlier one that is over may still come in."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._abandoned)
        while not isinstance(message := self.receive(), Job):
            pass
        return message

    def more(self) -> bool:
        """Say that there is nothing to do, and wait until there may be; True once the blob is verified.

        Raises:
            Abandoned: the job has ended otherwise meanwhile.
        """
        self.send(Starving())
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._connection.fileno(), self._abandoned], [], [])
            if self._abandoned in ready:
                raise Abandoned
            self._fill()
        message = self.receive()
        return isinstance(message, Grown) and message.verified

    def abandon(self) -> None:
        """Whoever waits for more shall not: a fault is said when it is found, not when the next bytes come."""
        os.eventfd_write(self._abandoned, 1)

    def seen(self, done: int) -> None:
        """Report progress, at a bounded rate."""
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY:
            self._reported = now
            self.send(Working(done))

    def _fill(self) -> None:
        data = self._connection.recv(1 << 16)
        if not data:
            os._exit(0)
        self._received += data


class Ahead:
    """An iterator that is run in a thread, a bounded number of chunks ahead. What it raises comes out here.

    The thread ends with the iterator: whoever stops early must `stop` and `join`.
    """

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._queue: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ahead")
        self._thread.start()

    def _run(self) -> None:
        try:
            for chunk in self._source:
                self._room.acquire()
                if self._stopped:
                    break
                self._queue.put(chunk)
        except BaseException as exc:
            self._queue.put(exc)
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._queue.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
            self._room.release()

    def stop(self) -> None:
        """Let the thread end at its next chunk."""
        self._stopped = True
        self._room.release(_AHEAD)

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()


def unpack(job: Job, line: Line) -> Outcome:
    """Carry one job out.

    Raises:
        LayerError: the layer is at fault, as far as these bytes go.
        Stale: these were not the bytes of the blob.
        NoInodes: the disk has no room for further files.
        OSError: the disk is at fault.
    """
    digest = hashlib.sha256()
    source = Follow(job, line.more, line.seen)
    root = os.open(job.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    trash = os.open(job.trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    inflated = Ahead(_tar(source, job))
    ahead = Ahead(hashed(iter(inflated), digest, job.limits.expanded(job.size)))
    try:
        layer = Layer(
            root, trash, rights=Rights(opaque=job.opaque), links_below=job.links_below, directories=job.limits.directories
        )
        archive = Archive(iter(ahead), max_entries=job.limits.entries, max_bytes=job.limits.size)
        outcome = layer.unpack(archive)
    except OSError as exc:
        if exc.errno == errno.ENOSPC and inodes_are_used_up(Path(job.tree)):
            raise NoInodes(archive.entries) from exc
        raise
    finally:
        ahead.stop()
        inflated.stop()
        line.abandon()
        ahead.join()
        inflated.join()
        source.close()
        os.close(root)
        os.close(trash)
    found = f"sha256:{digest.hexdigest()}"
    if found != job.diff_id:
        raise WrongDiffID(f"the layer unpacks to {found}, where the image's config says {job.diff_id}")
    return outcome


def _tar(source: Follow, job: Job) -> Iterator[bytes]:
    """All reading and inflating, to its first byte, happens in the thread that runs this."""
    yield from chunks(source, job.media_type)
    # Bytes behind the compressed data count for nothing, but an unread blob is an unverified one.
    while source.read(1 << 17):
        pass


def answer(job: Job, line: Line) -> Unpacked | Failed:
    """Carry one job out and say what became of it."""
    try:
        return Unpacked(unpack(job, line))
    except LayerError as exc:
        return Failed(str(exc), code=exc.code)
    except Stale:
        return Failed("the growing file was replaced", code="stale")
    except NoInodes as exc:
        return Failed("no inodes left", errno=errno.ENOSPC, entries=exc.entries)
    except OSError as exc:
        return Failed(f"{exc.strerror or exc}", errno=exc.errno or 0)
    except Exception as exc:
        return Failed(f"{type(exc).__name__}: {exc}")


def keep_memory(libc: ctypes.CDLL) -> None:
    """Have malloc use the memory of one chunk again for the next, rather than give it back and have the kernel clear new
    pages: a twentieth of a worker's time. Other C libraries than glibc have no such knob and are left as they are."""
    with suppress(AttributeError):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP)


def main(descriptor: int, parent: int) -> None:
    """Serve the socket until the service closes it."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    keep_memory(libc)
    # The service is told to stop and tells us by closing the socket; a Ctrl-C reaches the whole terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024 and (hard == resource.RLIM_INFINITY or hard >= 1024):
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    line = Line(socket.socket(fileno=descriptor))
    while True:
        line.send(answer(line.job(), line))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

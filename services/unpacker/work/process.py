"""A worker process: unpacks one layer after another, as told over the socket it was started with.

Three threads share a job that is not small, all mostly outside the interpreter's lock: one reads and inflates, one hashes, one
makes files. A fourth says how far they are. The process dies with the service that started it.
"""

import ctypes
import errno
import hashlib
import os
import resource
import signal
import socket
import sys
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
from services.unpacker.work.ahead import Ahead
from services.unpacker.work.follow import Follow, Stale
from services.unpacker.work.line import Line
from services.unpacker.work.messages import Failed, Job, Unpacked
from services.unpacker.work.pulse import Pulse

_ALONE = 1 << 16
"""Bytes of a blob up to which one thread does everything."""
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 256 << 20
"""Bytes of freed memory that malloc keeps: far more than the chunks of a job, some 20 MB."""


class WrongDiffID(LayerError):
    """The layer is a well-formed tar, but not the one the image's config speaks of."""

    code = "diffid.mismatch"


class NoInodes(Exception):
    """The file system has no inode left.

    Attributes:
        entries: of the layer that were seen by then.
    """

    def __init__(self, entries: int) -> None:
        super().__init__(entries)
        self.entries = entries


def unpack(job: Job, line: Line, pulse: Pulse) -> Outcome:
    """Carry one job out. For a small one it costs more to start threads than they save.

    Raises:
        LayerError: the layer is at fault, as far as these bytes go.
        Stale: these were not the bytes of the blob.
        NoInodes: the disk has no room for further files.
        OSError: the disk is at fault.
    """
    digest = hashlib.new(job.diff_id.partition(":")[0])
    source = Follow(job, line.more, line.seen)
    tar, most = _tar(source, job), job.limits.expanded(job.size)
    root = os.open(job.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    trash = os.open(job.trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    threads: list[Ahead] = []
    if job.size > _ALONE:
        threads.append(Ahead(tar))
        threads.append(Ahead(hashed(iter(threads[0]), digest, most)))
    try:
        layer = Layer(
            root, trash, rights=Rights(opaque=job.opaque), links_below=job.links_below, directories=job.limits.directories
        )
        pieces = iter(threads[-1]) if threads else hashed(tar, digest, most)
        archive = Archive(pieces, max_entries=job.limits.entries, max_bytes=job.limits.size)
        with pulse.during(job.limits.patience, lambda: source.position + archive.pulled + archive.entries + layer.completed):
            outcome = layer.unpack(archive)
    except OSError as exc:
        if exc.errno == errno.ENOSPC and inodes_are_used_up(Path(job.tree)):
            raise NoInodes(archive.entries) from exc
        raise
    finally:
        for thread in threads:
            thread.stop()
        line.abandon()
        for thread in threads:
            thread.join()
        source.close()
        os.close(root)
        os.close(trash)
    found = f"{digest.name}:{digest.hexdigest()}"
    if found != job.diff_id:
        raise WrongDiffID(f"the layer unpacks to {found}, where the image's config says {job.diff_id}")
    return outcome


def _tar(source: Follow, job: Job) -> Iterator[bytes]:
    """All reading and inflating, to its first byte, happens in the thread that asks for it."""
    yield from chunks(source, job.media_type, window=job.limits.window)
    # Bytes behind the compressed data count for nothing, but an unread blob is an unverified one.
    while source.read(1 << 17):
        pass


def answer(job: Job, line: Line, pulse: Pulse) -> Unpacked | Failed:
    """Carry one job out and say what became of it."""
    try:
        return Unpacked(unpack(job, line, pulse))
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
    pulse = Pulse(line)
    while True:
        line.send(answer(line.job(), line, pulse))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

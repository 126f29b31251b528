"""The growing file of one blob on the disk: blocking work, for one thread at a time, by whoever holds its lock.

The file's size is the number of bytes that a follower may read. The digest of what lies in it is kept beside it. Room for the
rest of the blob is reserved on the disk before the first byte is asked for: what two writers were promised, they both get.
"""

import os
from contextlib import suppress
from pathlib import Path

from pullonce.errors import Permanent
from pullonce.failpoints import reach
from pullonce.oci.digest import Verifier
from pullonce.store.disk import begin_writing, disk_errors, disk_full, free_bytes, release, reserve, sync_directory
from schemas.oci import Descriptor

SMALL = 1 << 16
"""Bytes up to which a blob is not worth following while it grows: it is written, verified and published in one step."""
_PIECE = 1 << 20
_STRETCH = 8 << 20
"""Bytes after which the disk is given something to do: else all of it would be left to the end."""


class Unverified(Exception):
    """What lies in a growing file has another digest than the blob."""


class GrowingFile:
    """An open growing file.

    Args:
        fd: open for reading and writing, and locked; this closes it.
        sync: whether content reaches the disk before it becomes visible.

    Attributes:
        stored: bytes that are in the file.
        verifier: has seen exactly these.
    """

    def __init__(self, fd: int, path: Path, blob: Descriptor, *, sync: bool) -> None:
        self.stored = 0
        self.verifier = Verifier(blob.digest)
        self._fd = fd
        self._path = path
        self._blob = blob
        self._sync = sync
        self._published = False
        self._begun = 0

    @property
    def empty_yet(self) -> bool:
        """Nothing was ever written to it."""
        return os.fstat(self._fd).st_size == 0

    def still_named(self) -> bool:
        """Whether this is the file that bears the name: whoever held the lock before may have renamed or removed it."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False

    def take_over(self) -> None:
        """Go on behind what an earlier attempt left. Longer than the blob can only be rubbish."""
        with disk_errors(self._path):
            size = os.fstat(self._fd).st_size
            if size > self._blob.size:
                os.ftruncate(self._fd, 0)
                return
            while self.stored < size and (piece := os.pread(self._fd, _PIECE, self.stored)):
                self.verifier.update(piece)
                self.stored += len(piece)

    def reserve(self) -> None:
        """Have the disk keep room for what is missing, until the file is published or closed.

        Raises:
            Permanent: `disk.full`, naming the missing bytes; nothing is held back then. Or the disk refuses otherwise.
        """
        missing = self._blob.size - self.stored
        try:
            with disk_errors(self._path, missing):
                kept = reserve(self._fd, self.stored, missing)
        except Permanent:
            self._give_back()
            raise
        if not kept and missing > free_bytes(self._path):
            raise disk_full(self._path, missing)

    def append(self, chunks: list[bytes]) -> None:
        """Write and hash some bytes. Raises Permanent where the disk refuses; `stored` then says what is whole."""
        data = b"".join(chunks) if len(chunks) > 1 else chunks[0]
        view, position = memoryview(data), self.stored
        with disk_errors(self._path, self._blob.size - position):
            while view:
                written = os.pwrite(self._fd, view, position)
                position += written
                view = view[written:]
        self.verifier.update(data)
        self.stored = position
        if self._sync and position - self._begun >= _STRETCH:
            begin_writing(self._fd, self._begun, position - self._begun)
            self._begun = position
        reach("body.middle")

    def empty(self) -> None:
        """Drop everything."""
        os.ftruncate(self._fd, 0)
        self.verifier = Verifier(self._blob.digest)
        self.stored = self._begun = 0

    def publish(self, final: Path) -> None:
        """Make the file visible as what it has proved to be. Raises Permanent where the disk refuses."""
        self.sync()
        self.rename(final)
        self.sync_names(final.parent)

    # -- the steps of `publish`, for those who take each with many files at once; all raise Permanent where the disk refuses --

    def complete(self, chunks: list[bytes]) -> None:
        """Write the last bytes, and have the disk begin with them. Raises Unverified where they do not make the blob."""
        if chunks:
            self.append(chunks)
        if not self.verifier.verified():
            raise Unverified
        if self._sync:
            begin_writing(self._fd, 0, self.stored)

    def sync(self) -> None:
        """Have its bytes on the disk."""
        reach("blob.verified")
        if self._sync:
            with disk_errors(self._path, self._blob.size):
                os.fsync(self._fd)

    def rename(self, final: Path) -> None:
        """Give it the name under which everybody sees it."""
        with disk_errors(final, self._blob.size):
            final.parent.mkdir(exist_ok=True)  # the first blob of its digest algorithm
            self._path.rename(final)
        self._published = True
        reach("blob.renamed")

    def sync_names(self, directory: Path) -> None:
        """Have the names in a directory on the disk."""
        if self._sync:
            with disk_errors(directory):
                sync_directory(directory)

    def close(self) -> None:
        """Give up the lock, and the room that was reserved."""
        try:
            if not self._published:
                self._give_back()
        finally:
            os.close(self._fd)

    def _give_back(self) -> None:
        with suppress(OSError):
            release(self._fd)

"""Read a blob that may still be growing.

The bytes on the disk are the truth; messages only say when to look again. What is read before the blob is verified may be
wrong: then the diffID is too, and the layer is read once more from the verified blob before anybody is blamed.
"""

import errno
import os
from collections.abc import Callable
from io import FileIO

from services.unpacker.work.messages import Job


class Stale(Exception):
    """The file that was followed is not what became the blob."""


class Follow:
    """File-like over the verified blob of a job, or else over its growing file, to its full size.

    Args:
        more: called when every byte that is there has been read; returns when it is worth looking again, and whether the blob
            is verified.
        seen: called with the number of bytes read so far.
    """

    def __init__(self, job: Job, more: Callable[[], bool], seen: Callable[[int], None]) -> None:
        self._job = job
        self._more = more
        self._seen = seen
        self._file: FileIO | None = None
        self.position = 0
        """Bytes read so far."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at least one; none at the end of the blob. Waits where they are not there yet.

        A verified blob ends where it ends: the size that was told for it may be a lie of the image's.

        Raises:
            Stale: the blob is verified and this is another file.
            FileNotFoundError: it was there, and is gone: it was removed meanwhile.
        """
        verified = complete = False
        while self.position < self._job.size:
            if self._file is None:
                self._file = _open(self._job)
            if self._file is not None and (data := self._file.read(min(size, self._job.size - self.position))):
                self.position += len(data)
                self._seen(self.position)
                return data
            if complete:
                break
            complete = self._file is not None and self._is_blob(self._file)
            if complete:
                continue  # what was written between the two looks
            if self._job.verified:
                raise FileNotFoundError(errno.ENOENT, "the blob is gone")
            if verified and self._file is not None:
                raise Stale
            verified = self._more()
        return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _is_blob(self, file: FileIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._job.blob))  # noqa: PTH116
        except FileNotFoundError:
            return False


def _open(job: Job) -> FileIO | None:
    """The blob, or its growing file; between the two looks one may have become the other."""
    for path in (job.blob, job.ingest, job.blob):
        try:
            return FileIO(path)
        except FileNotFoundError:
            continue
    return None

"""Read blobs again, politely, and say which are not what their digest says."""

import os
import threading
import time
from pathlib import Path

from pullonce.errors import Permanent
from pullonce.oci.digest import Verifier
from schemas.oci import Digest

_PIECE = 1 << 20


class Pace:
    """Holds several threads together to so many bytes a second; 0: to as many as the disk gives."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._due = time.monotonic()

    def spend(self, count: int) -> None:
        """Some bytes were read: wait until the next may be."""
        if not self._rate:
            return
        with self._lock:
            self._due = max(self._due, time.monotonic()) + count / self._rate
            wait = self._due - time.monotonic()
        time.sleep(max(0.0, wait))


def damage(path: Path, digest: str, pace: Pace) -> str:
    """What is wrong with a blob; empty where nothing is.

    It is read from the disk, not out of the page cache, as far as the kernel lets go of what is cached.

    Raises:
        FileNotFoundError: it is gone.
    """
    try:
        verifier = Verifier(Digest(digest))
    except Permanent:
        return "its name is no digest"
    try:
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while piece := file.read(_PIECE):
                verifier.update(piece)
                pace.spend(len(piece))
    except IsADirectoryError:
        return "it is a directory"
    except FileNotFoundError:
        raise
    except OSError as exc:
        return f"it cannot be read: {exc.strerror}"
    return "" if verifier.verified() else f"its content has the digest {verifier.actual()}"

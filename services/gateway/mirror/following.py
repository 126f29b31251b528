"""A blob that may still be growing: how far it may be given at this moment. Blocks only as long as a look at the disk takes.

The bytes on the disk are the truth; messages only say when to look again. Until the blob is verified its last byte is kept
back: so a client never has all of what turns out to be wrong, and sees the broken connection.
"""

import os
from types import TracebackType

from pullonce.errors import PullonceError
from pullonce.store.content import ContentStore
from schemas.oci import Digest


class Broken(PullonceError):
    """What was given is not the beginning of the blob any more: it was dropped, or something else became the blob."""


class Followed:
    """The verified blob, or else its growing file. `with Followed(…) as followed:`

    Args:
        size: bytes that the blob has.
    """

    def __init__(self, content: ContentStore, digest: Digest, size: int) -> None:
        self._paths = content.blob_path(digest), content.ingest_path(digest)
        self._size = size
        self._fd: int | None = None
        self.verified = False
        """Whether the file is the blob; before that, all of it but its end may be wrong."""

    @property
    def fd(self) -> int:
        """The open file; once `look` has said that there are bytes."""
        assert self._fd is not None
        return self._fd

    def look(self, given: int = 0) -> int:
        """Bytes from the beginning of the blob that may be given.

        Args:
            given: how many of them the client has been sent; 0: none that it would hold against others.

        Raises:
            Broken: those that were given are worth nothing.
        """
        if self._fd is None and not self._open():
            return 0
        status = os.fstat(self.fd)
        if not self.verified and self._is_blob(status):
            self.verified, status = True, os.fstat(self.fd)  # what was written between the two looks
        if self.verified:
            if status.st_size != self._size:
                raise Broken(f"the blob has {status.st_size} bytes, and its manifest says {self._size}")
            return self._size
        if status.st_nlink == 0 or self._paths[0].exists() or status.st_size > self._size:
            return self._elsewhere(given)
        if status.st_size < given:
            raise Broken("the growing file was emptied")
        return min(status.st_size, self._size - 1)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> bool:
        """Between the looks at the two, one may have become the other."""
        for path in (self._paths[0], self._paths[1], self._paths[0]):
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            return True
        return False

    def _is_blob(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(status, self._paths[0].stat())
        except FileNotFoundError:
            return False

    def _elsewhere(self, given: int) -> int:
        """The file that was followed is not what became the blob, or becomes it; who has nothing yet begins with the other."""
        if given:
            raise Broken("another file became the blob")
        self.close()
        return 0

    def __enter__(self) -> "Followed":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

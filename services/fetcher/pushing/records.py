"""Where the upload of each blob stood, on the store's disk: what was interrupted goes on, and two never send the same blob.

    uploads/<hash of server, repository and digest>      a `_Record` in JSON, locked by whoever pushes that blob there

A file is removed when its upload has ended, and when nobody went on with it for a day: registries forget uploads too. It may
be read by nobody else, since where an upload goes on is often all that one needs to go on with it.
"""

import asyncio
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from pullonce.store.disk import disk_errors
from schemas.oci import Digest
from services.fetcher.remote.sessions import Destination, Session

_LOOK = 0.05
"""Seconds between looks whether somebody else is done."""
KEPT = 86_400.0
_LONGEST = 1 << 20


class _Record(msgspec.Struct, frozen=True):
    location: str
    credential: str
    smallest: int = 0


_decode = msgspec.json.Decoder(_Record).decode


class UploadRecord:
    """The record of one blob's upload, while it is locked. Made by `UploadRecords`."""

    def __init__(self, file: int, path: Path, credential: str) -> None:
        self._file = file
        self._path = path
        self._credential = credential

    def interrupted(self) -> Session | None:
        """An upload that somebody with the same credential began, and did not end; how far it is, the registry knows."""
        try:
            found = _decode(os.pread(self._file, _LONGEST, 0))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return Session(found.location, 0, found.smallest) if found.credential == self._credential else None

    def note(self, session: Session) -> None:
        """An upload goes on there. Not synced: one that a power cut forgets is begun anew.

        Raises:
            Permanent: the disk refuses.
        """
        body = msgspec.json.encode(_Record(session.location, self._credential, session.smallest))
        with disk_errors(self._path, len(body)):
            os.pwrite(self._file, body, 0)
            os.ftruncate(self._file, len(body))

    def forget(self) -> None:
        """There is nothing to go on with."""
        os.ftruncate(self._file, 0)


class UploadRecords:
    """The records of one store.

    Args:
        directory: where they lie.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @asynccontextmanager
    async def of(self, to: Destination, blob: Digest) -> AsyncIterator[UploadRecord]:
        """The record of a blob's upload, for its one user; waits while there is another, in this process or elsewhere.

        Raises:
            Permanent: the disk refuses.
        """
        path = self._directory / _name(to, blob)
        file = await _open_locked(path)
        try:
            yield UploadRecord(file, path, to.source.credential)
        finally:
            if not os.fstat(file).st_size:  # under the lock: who waits for it finds that it has no name any more
                path.unlink(missing_ok=True)
            os.close(file)

    def tidy(self) -> None:
        """Remove what nobody went on with."""
        for path in self._directory.glob("*"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - KEPT:
                    path.unlink()


async def _open_locked(path: Path) -> int:
    """Open (or make) a record and lock it, and see that it is still the one that others would find."""
    while True:
        with disk_errors(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            held = _lock(file)
            while not held:
                await asyncio.sleep(_LOOK)
                held = _lock(file)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.lstat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _name(to: Destination, blob: Digest) -> str:
    named = f"{to.host.origin}{to.host.path}\n{to.source.registry}/{to.source.repository}\n{blob}"
    return hashlib.sha256(named.encode()).hexdigest()[:40]

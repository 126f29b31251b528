"""What each flight uses of a store, noted on its disk, so that nobody removes it; and when an image was used last.

    uses/<flight>      a `Use` in JSON: what the newest flight of that key was resolved to; its time of change is that moment

A fetcher notes the use in the same locked step (`Images.hold`) in which it looks what the disk holds of the image. Whoever
removes something looks at the list of images and at the uses under that lock too: so it sees the flight, or the flight sees
that the thing is gone. A use says nothing of whether its flight is still in flight; the log knows that.

There is one file a flight key, written over by the next flight of it, which cannot begin before the last one ended. It is not
synced: a flight that a power cut interrupts looks again, and an image is only listed when all of it is there.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from pullonce.store.disk import disk_errors
from pullonce.store.images import ImageRecord
from pullonce.store.layout import Layout

_encode = msgspec.json.Encoder().encode


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One flight and the image it was resolved to."""

    flight: str
    opened: int
    """Position in the log at which the flight was opened."""
    image: ImageRecord
    """As it will be listed, with all snapshots that a flight may want."""
    at: float = 0.0
    """Seconds since the epoch at which it was noted; filled in when it is read."""


_decode = msgspec.json.Decoder(Use).decode


class Uses:
    """The uses of one store.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._place = Layout(root).uses

    def note(self, use: Use) -> None:
        """Note a use; one of a later flight stands. Call it while holding the store's lock.

        On a read-only file system, where nobody removes anything, it does nothing.

        Raises:
            Permanent: the disk refuses.
        """
        path = self._place / use.flight
        try:
            self._place.mkdir(exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            if exc.errno == errno.EROFS:
                return
            with disk_errors(path):
                raise
        try:
            with disk_errors(path):
                known = _read(fd)
                if known is None or known.opened <= use.opened:
                    # Written over in place: an image that is all there can be pulled from a disk that is full.
                    body = _encode(use)
                    os.pwrite(fd, body, 0)
                    os.ftruncate(fd, len(body))
        finally:
            os.close(fd)

    def all(self) -> Iterator[Use]:
        """Every use that can be read."""
        try:
            paths = sorted(self._place.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            with suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    use = _read(fd)
                    if use is not None:
                        yield msgspec.structs.replace(use, at=os.fstat(fd).st_mtime)
                finally:
                    os.close(fd)

    def forget(self, use: Use) -> None:
        """Remove a use. Call it while holding the store's lock, about a flight that has ended."""
        with disk_errors(self._place):
            (self._place / use.flight).unlink(missing_ok=True)


def _read(fd: int) -> Use | None:
    """None for what a power cut left half written."""
    try:
        return _decode(os.pread(fd, 1 << 22, 0))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None

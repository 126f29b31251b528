"""What is read out of a tar: one entry, whatever dialect it was written in."""

from collections.abc import Sequence
from typing import NamedTuple

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
"""Kinds of entries, as ustar writes them."""

MAX_NAME = 4096
"""Bytes of a name, or of a link's target: PATH_MAX, what a container could open."""


class Stretch(NamedTuple):
    """A stored stretch of a sparse file."""

    offset: int
    length: int


class Entry:
    """One file, directory, link or device of a tar, its extension headers applied."""

    __slots__ = ("device", "gid", "kind", "link", "mode", "mtime", "name", "size", "sparse", "uid", "xattrs")

    def __init__(self, name: bytes, kind: bytes, link: bytes = b"", numbers: Sequence[int] = (0, 0, 0, 0, 0)) -> None:
        self.name = name
        """As it stands in the archive."""
        self.kind = kind
        self.link = link
        """Target of a symbolic or hard link, as it stands in the archive."""
        mode, self.uid, self.gid, self.size, seconds = numbers
        self.mode = mode & 0o7777
        """The twelve permission bits. `uid`, `gid`: -1 is whoever unpacks. `size`: with the holes of a sparse file."""
        self.mtime = seconds * 1_000_000_000
        """Nanoseconds since the epoch; may be negative."""
        self.device = (0, 0)
        """Major and minor number."""
        self.xattrs: dict[bytes, bytes] | None = None
        self.sparse: list[Stretch] | None = None
        """Where the stored bytes of a sparse file belong; None for any other."""

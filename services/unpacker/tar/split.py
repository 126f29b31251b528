"""tar-split of a layer: what it takes beside its tree to give its tar back, byte for byte. Pure.

A line is a JSON object: bytes of the tar as they are (`type` 2), or a file of the tree whose content comes next (`type` 1, with
its name, size and crc64). containers/storage keeps these lines beside each layer, and makes the tar of them when an image is
pushed or saved. Source: github.com/vbatts/tar-split, `tar/storage`; crc64 as Go's `hash/crc64` has it for ISO 3309.

Whether the tree gives a file's bytes back is not concluded from the tar but read: they are compared while they pass. What it
does not give back lies in the lines themselves: a sparse file, which is stored with its map; a file that a later entry of the
same layer replaces; one whose name leads through a link. So every archive that was unpacked comes out again as it was.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
from fastcrc import crc64

from services.unpacker.tar.archive import Archive
from services.unpacker.tar.entry import FILE
from services.unpacker.tar.stream import BLOCK, Stream

_PIECE = 1 << 20
"""Bytes in one line, at most, and those that are compared at a time."""
_LONGEST = 3 << 10
"""Bytes of a name: whoever reads the lines opens it below the path of the tree, all in one, and a path may have 4,096."""
_ANY = 1 << 62


class TreeFile(Protocol):
    """An open file of the layer's tree."""

    def read(self, size: int, offset: int) -> bytes: ...
    def close(self) -> None: ...


Open = Callable[[bytes, int], TreeFile | None]
"""Opens a name of the tree where that is a file of so many bytes and no link leads there; else None."""


class Owners(msgspec.Struct):
    """The users and groups whose files a layer has."""

    uids: set[int]
    gids: set[int]


class _Segment(msgspec.Struct):
    type: int
    payload: bytes
    position: int


class _File(msgspec.Struct, omit_defaults=True):
    type: int
    size: int
    payload: bytes
    position: int
    name: str = ""
    name_raw: bytes = b""


_encode = msgspec.json.Encoder().encode


def split(tar: Iterator[bytes], opened: Open, write: Callable[[bytes], object]) -> Owners:
    """Write the lines of a layer.

    Args:
        tar: the layer, uncompressed.
        opened: opens the files of its tree.
        write: takes the lines.

    Raises:
        LayerError: it is no such archive.
    """
    lines = _Lines(write)
    archive = Archive(_Taped(tar, lines.raw), max_entries=_ANY, max_bytes=_ANY)
    owners = Owners(set(), set())
    seen: set[bytes] = set()
    for entry in archive:
        owners.uids.add(max(entry.uid, 0))
        owners.gids.add(max(entry.gid, 0))
        if entry.kind == FILE and archive.left:
            name = plain(entry.name)
            if not name or name in seen or not _from_tree(name, archive, opened, lines):
                while (view := archive.data(_PIECE)) is not None:
                    lines.raw(view)
            else:
                seen.add(name)
    archive.drain()
    lines.end()
    return owners


def plain(name: bytes) -> bytes:
    """The name of a tar below the root of a tree; empty where that would have to be found out, or cannot be opened in one."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    found = b"/".join(parts)
    return b"" if b".." in parts or len(found) > _LONGEST else found


def _from_tree(name: bytes, archive: Archive, opened: Open, lines: "_Lines") -> bool:
    """Write the line of a file whose content the tree has; False where it has another, with what was passed in the lines."""
    size, done, crc = archive.left, 0, 0
    file = opened(name, size)
    if file is None:
        return False
    try:
        while (view := archive.data(_PIECE)) is not None:
            if file.read(len(view), done) != bytes(view):
                for offset in range(0, done, _PIECE):  # this far the tree has it
                    lines.raw(file.read(min(_PIECE, done - offset), offset))
                lines.raw(view)
                return False
            crc = crc64.go_iso(view, crc)
            done += len(view)
    finally:
        file.close()
    lines.file(name, size, crc)
    return True


class _Lines:
    """Lines that are numbered; raw bytes are gathered."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._position = 0
        self._gathered = bytearray()

    def raw(self, piece: bytes | memoryview) -> None:
        self._gathered += piece
        if len(self._gathered) >= _PIECE:
            self.end()

    def file(self, name: bytes, size: int, crc: int) -> None:
        self.end()
        line = _File(1, size, crc.to_bytes(8, "big"), self._position)
        try:
            line.name = name.decode()
        except UnicodeDecodeError:
            line.name_raw = name
        self._put(line)

    def end(self) -> None:
        """Write what was gathered."""
        if self._gathered:
            self._put(_Segment(2, bytes(self._gathered), self._position))
            self._gathered.clear()

    def _put(self, line: _Segment | _File) -> None:
        self._write(_encode(line) + b"\n")
        self._position += 1


class _Taped(Stream):
    """A stream that also hands on what is read of it, but for the content of files (`some`)."""

    __slots__ = ("_keep",)

    def __init__(self, chunks: Iterator[bytes], keep: Callable[[bytes | memoryview], None]) -> None:
        super().__init__(chunks)
        self._keep = keep

    def block(self) -> bytes | None:
        if self._offset == self._end and not self._fill():
            return None
        return self.take(BLOCK)

    def take(self, size: int) -> bytes:
        taken = super().take(size)
        self._keep(taken)
        return taken

    def skip(self, size: int) -> None:
        while size:
            part = self.some(size)
            self._keep(part)
            size -= len(part)

    def pad(self, size: int) -> None:
        while size and (self._offset < self._end or self._fill()):
            part = self.some(size)
            self._keep(part)
            size -= len(part)

    def drain(self) -> None:
        while self._offset < self._end or self._fill():
            self._keep(self.some(_PIECE))

"""Write, copy and compare files stretch by stretch: what is stored costs time and room, holes cost neither."""

import errno
import os
from collections.abc import Iterator
from heapq import merge

from services.unpacker.tar.archive import Archive
from services.unpacker.tar.entry import Entry
from services.unpacker.tar.invalid import LayerError

_PIECE = 1 << 20


def write_sparse(file: int, entry: Entry, archive: Archive) -> int:
    """Write the stored stretches to where they belong; between them lie holes. Returns the bytes that are stored."""
    os.ftruncate(file, entry.size)
    stored = 0
    for offset, length in entry.sparse or ():
        stored += length
        while length:
            data = archive.data(length)
            if data is None:
                raise LayerError("a sparse file whose content ends too early")
            written = os.pwrite(file, data, offset)
            while written < len(data):
                written += os.pwrite(file, data[written:], offset + written)
            offset += len(data)
            length -= len(data)
    return stored


def stretches(file: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each stretch of an open file that is no hole, in order. Moves the file's position.

    A file system that knows no holes has one stretch. Source: lseek(2), SEEK_DATA.
    """
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


def copy_content(reader: int, writer: int) -> int:
    """Fill an empty file with what another one holds, holes left holes. Returns the bytes that were copied."""
    os.ftruncate(writer, os.fstat(reader).st_size)
    copied = 0
    for start, end in stretches(reader):
        os.lseek(writer, start, os.SEEK_SET)
        while start < end:
            moved = os.sendfile(writer, reader, start, min(end - start, 1 << 30))
            if not moved:
                break  # the file was cut off meanwhile
            start += moved
            copied += moved
    return copied


def same_content(one: int, two: int) -> bool:
    """Whether two open files of one length read the same. Read is only what is stored in either; a hole is zeros."""
    before = (-1, -1)
    for stretch in merge(stretches(one), stretches(two)):
        if stretch == before:
            continue
        before = stretch
        at, end = stretch
        while at < end:
            piece = os.pread(one, min(end - at, _PIECE), at)
            if piece != os.pread(two, min(end - at, _PIECE), at):
                return False
            if not piece:
                break
            at += len(piece)
    return True

"""Bytes of a tar → entries. Pure: chunks come in, entries and their content go out.

Understands v7, ustar, star, pax and GNU archives: long names (`L`, `K`, `x`), base-256 numbers, sparse files in all four
forms. As Go's archive/tar, and so every other container tool, reads them: extension headers are applied before anything is
decided on a header's fields; a global header changes nothing, but uses up what was said before it of the next entry; links,
directories and devices have no content whatever their size field says; and an archive may end without its two zero blocks, and
without the padding of its last file.
"""

import re
from collections.abc import Iterator
from struct import Struct
from zlib import adler32

from services.unpacker.tar import extensions
from services.unpacker.tar.entry import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, MAX_NAME, SYMLINK, Entry
from services.unpacker.tar.fields import MAX_ID, number, owner
from services.unpacker.tar.invalid import LayerError, TooLarge, shown
from services.unpacker.tar.stream import BLOCK, Stream

MAX_EXTENSION = 1 << 20
"""Bytes of one extension header; Go's limit."""

_HEADER = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_FIELDS = ("mode", "uid", "gid", "size", "mtime")
_ZEROS = bytes(BLOCK)
_MARK = len(b"/.wh..wh..opq")
"""What the longest name may bear behind it."""
_EXTENSIONS = frozenset(b"xgXLK")
_KINDS = {b"\0": FILE, b"7": FILE, b"S": FILE} | {kind: kind for kind in (FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE)}
_KINDS |= {DIRECTORY: DIRECTORY, FIFO: FIFO}
_NUMBERS = re.compile(rb"[0-7 \0]*")
"""Number fields in which Python's `int` finds no more than Go's parser does."""


class Archive:
    """The entries of a tar, in order. Content that was not read when the next entry is asked for is passed over.

    Raises:
        LayerError: the bytes are no such archive, pass a limit, or end too early.
    """

    def __init__(self, chunks: Iterator[bytes] | Stream, *, max_entries: int = 10_000_000, max_bytes: int = 1 << 37) -> None:
        self._stream = chunks if isinstance(chunks, Stream) else Stream(chunks)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._left = 0
        self._padding = 0
        self.entries = 0

    def __iter__(self) -> Iterator[Entry]:
        extra: dict[bytes, bytes] | None = None
        name = link = None
        for header in self._headers():
            kind = header[156:157]
            if kind[0] in _EXTENSIONS:
                body = self._extension(header)
                match kind:
                    case b"x" | b"X":
                        extra = extensions.records(body)
                    case b"L":
                        name = body.partition(b"\0")[0]
                    case b"K":
                        link = body.partition(b"\0")[0]
                    case b"g":
                        # Go hands a global header out as an entry: what came before it does not reach the next one.
                        extensions.records(body)
                        extra = name = link = None
                continue
            entry = parse(header)
            if extra is not None:
                extensions.apply(entry, extra)
            # A GNU long name wins over a pax one, as in Go.
            if name:
                entry.name = name
            if link:
                entry.link = link
            if kind == b"\0" and entry.name[-1:] == b"/":
                entry.kind = DIRECTORY
            if entry.uid > MAX_ID or entry.gid > MAX_ID or entry.uid < 0 or entry.gid < 0:
                entry.uid, entry.gid = owner(entry.uid), owner(entry.gid)
            self._open(entry, header, extra)
            yield entry
            extra = name = link = None

    def data(self, limit: int = 1 << 62) -> memoryview | None:
        """Some of the present entry's stored bytes, at most `limit`; None at their end."""
        left = self._left
        if not left:
            return None
        view = self._stream.some(left if left < limit else limit)
        self._left = left - len(view)
        return view

    @property
    def left(self) -> int:
        """Stored bytes of the present entry that were not read yet; what maps a sparse file is not among them."""
        return self._left

    @property
    def pulled(self) -> int:
        """Chunks of the archive that were asked for so far."""
        return self._stream.pulled

    def drain(self) -> None:
        """Pull what follows the archive."""
        self._stream.drain()

    def _headers(self) -> Iterator[bytes]:
        """Header blocks up to two zero blocks in a row or the end. A lone zero block says nothing."""
        stream = self._stream
        zeros = 0
        while zeros < 2:
            if self._left or self._padding:
                stream.skip(self._left)
                stream.pad(self._padding)
                self._left = self._padding = 0
            header = stream.block()
            if header is None:
                return
            if not header[148] and header == _ZEROS:
                zeros += 1
                continue
            zeros = 0
            yield header

    def _extension(self, header: bytes) -> bytes:
        size = number(header[124:136], "size")
        check(header)
        if not 0 <= size <= MAX_EXTENSION:
            raise TooLarge(f"an extension header of {size} bytes; at most {MAX_EXTENSION} are read")
        self._padding = -size % BLOCK
        return self._stream.take(size)

    def _open(self, entry: Entry, header: bytes, extra: dict[bytes, bytes] | None) -> None:
        """Check the entry and stand before its content."""
        self.entries += 1
        if self.entries > self._max_entries:
            raise TooLarge(f"more than {self._max_entries} entries; PULLONCE_LAYER_MAX_ENTRIES raises the limit")
        self._check_names(entry)
        stored = entry.size if entry.kind == FILE else 0
        if stored < 0:
            raise LayerError(f"entry {shown(entry.name)}: a size of {stored} bytes")
        self._left = stored
        self._padding = -stored % BLOCK
        form = extensions.sparse_form(extra) if extra else b""
        if entry.kind == FILE:
            if header[156:157] == b"S" or form:
                self._left -= extensions.open_sparse(entry, header, extra or {}, form, self._stream)
                self._check_names(entry)
            self._bytes += entry.size
            if self._bytes > self._max_bytes:
                what = f"more than {self._max_bytes} bytes with the files before it, holes included"
                raise TooLarge(f"entry {shown(entry.name)}: {what}; PULLONCE_LAYER_MAX_BYTES raises the limit")
        elif form:
            raise LayerError(f"entry {shown(entry.name)}: a sparse file that is no file")

    @staticmethod
    def _check_names(entry: Entry) -> None:
        if b"\0" in entry.name or b"\0" in entry.link:
            raise LayerError(f"entry {shown(entry.name)}: a zero byte in its name or link target")
        if len(entry.name) > MAX_NAME + _MARK or len(entry.link) > MAX_NAME:
            raise LayerError(f"entry {shown(entry.name)}: a name of more than {MAX_NAME} bytes")


def parse(header: bytes) -> Entry:
    """Read one header block without its extensions, which may yet say otherwise: nothing is decided here.

    Raises:
        LayerError: the checksum is wrong, a number is none, or the type is unknown.
    """
    name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, major, minor, prefix = _HEADER.unpack(header)
    check(header)
    name = name.partition(b"\0")[0]
    if prefix[0]:
        name = _prefixed(name, prefix, magic, header)
    kind = _KINDS.get(flag)
    if kind is None:
        raise LayerError(f"entry {shown(name)}: type {shown(flag)} is none that a layer may hold")
    fields = (mode, uid, gid, size, mtime)
    try:
        if not _NUMBERS.fullmatch(header, 100, 148):
            raise ValueError
        numbers = [int(field.rstrip(b"\0 "), 8) for field in fields]
    except ValueError:
        numbers = [number(field, what) for field, what in zip(fields, _FIELDS, strict=True)]
    entry = Entry(name, kind, link.partition(b"\0")[0], numbers)
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.device = (number(major, "major"), number(minor, "minor"))
    return entry


def _prefixed(name: bytes, prefix: bytes, magic: bytes, header: bytes) -> bytes:
    """Put the prefix field before a name, where that field is one."""
    if magic == b"ustar\x0000" or magic[:6] == b"ustar\0":
        # star keeps access and change time where ustar has the end of its prefix.
        field = prefix[:131] if header[508:] == b"tar\0" else prefix
    elif magic == b"ustar  \0" and not _are_times(prefix):
        # Go before 1.8 wrote a prefix into GNU headers, which have times there.
        field = prefix if prefix.partition(b"\0")[0].isascii() else b""
    else:
        return name
    field = field.partition(b"\0")[0]
    return field + b"/" + name if field else name


def _are_times(prefix: bytes) -> bool:
    """Whether what stands in place of a GNU header's prefix are its two times."""
    try:
        for field in (prefix[:12], prefix[12:24]):
            if field[0]:
                number(field, "time")
    except LayerError:
        return False
    return True


def check(header: bytes) -> None:
    """Compare the checksum of a header block.

    The sum of 512 bytes is the low half of their adler32, less one and modulo 65521: ten times faster than `sum`. Old tars
    summed signed bytes.

    Raises:
        LayerError: neither sum fits.
    """
    field = header[148:156]
    wanted = number(field, "checksum")
    if ((adler32(header) & 0xFFFF) - 1 - sum(field) + 256 - wanted) % 65521:
        signed = sum(b - 256 if b > 127 else b for b in header[:148] + b" " * 8 + header[156:])
        if signed != wanted:
            raise LayerError(f"entry {shown(header[:100].partition(bytes(1))[0])}: the checksum of its header is wrong")

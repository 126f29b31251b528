"""What extension headers say: pax records, and the maps of sparse files. Pure.

Sparse maps come in four forms (GNU tar manual, "Storing Sparse Files"): in the old GNU header itself, in repeated pax records
(0.0), in one pax record (0.1), and in front of the file's content (1.0).
"""

from __future__ import annotations

from itertools import pairwise

from services.unpacker.tar.entry import Entry, Extent
from services.unpacker.tar.fields import decimal, nanoseconds, number
from services.unpacker.tar.invalid import LayerError, TooLarge, shown
from services.unpacker.tar.stream import BLOCK, Stream

MAX_EXTENTS = 1_000_000
MAX_FILE = 1 << 62
_XATTR = b"SCHILY.xattr."
_NAMES = (b"path", b"linkpath", b"GNU.sparse.name")


def records(body: bytes) -> dict[bytes, bytes]:
    """Read the records of a pax header; the last of a key wins.

    The repeated `GNU.sparse.offset` and `.numbytes` of sparse form 0.0 are gathered under `GNU.sparse.map`, as in form 0.1; any
    `GNU.sparse.` record also sets the key `GNU.sparse`.

    Raises:
        LayerError: a record's length, its `=` or its end is not where it should be.
    """
    found: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    at, end = 0, len(body)
    while at < end:
        space = body.find(b" ", at, at + 20)
        digits = body[at:space]
        length = int(digits) if space > 0 and digits.isdigit() else 0
        record = body[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or not key or record[-1:] != b"\n" or at + length > end:
            raise LayerError(f"a pax header with a broken record at byte {at}")
        at += length
        if key in _NAMES and b"\0" in value:
            raise LayerError(f"a pax header with a zero byte in {shown(key)}")
        if key.startswith(b"GNU.sparse."):
            found[b"GNU.sparse"] = b""
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                pairs.append(value)
                continue
        found[key] = value
    if pairs:
        found[b"GNU.sparse.map"] = b",".join(pairs)
    return found


def apply(entry: Entry, extra: dict[bytes, bytes]) -> None:
    """Let pax records override what the header says. An empty value leaves the header's (Go, and so all container tools)."""
    for key, value in extra.items():
        if key.startswith(_XATTR):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[len(_XATTR) :]] = value
        elif value:
            match key:
                case b"path" | b"GNU.sparse.name":
                    if key != b"path" or b"GNU.sparse.name" not in extra:
                        entry.name = value
                case b"linkpath":
                    entry.link = value
                case b"size":
                    entry.size = decimal(value, key)
                case b"uid":
                    entry.uid = decimal(value, key)
                case b"gid":
                    entry.gid = decimal(value, key)
                case b"mtime":
                    entry.mtime = nanoseconds(value)


def open_sparse(entry: Entry, header: bytes, extra: dict[bytes, bytes], stream: Stream) -> int:
    """Find the map of a sparse file, and put it and the true length into the entry.

    Returns the bytes of the entry's stored content that were read for it.

    Raises:
        LayerError: the map is none, or does not fit the file.
    """
    stored = entry.size
    consumed = 0
    if header[156:157] == b"S":
        numbers, size = _old_map(header, stream)
    elif extra.get(b"GNU.sparse.major", b"0") != b"0":
        size = decimal(extra.get(b"GNU.sparse.realsize", b""), b"GNU.sparse.realsize")
        numbers, consumed = _leading_map(stored, stream)
    else:
        size = decimal(extra.get(b"GNU.sparse.size") or extra.get(b"GNU.sparse.realsize", b""), b"GNU.sparse.size")
        listed = extra.get(b"GNU.sparse.map", b"")
        numbers = [decimal(part, b"GNU.sparse.map") for part in listed.split(b",")] if listed else []
    entry.sparse = extents(numbers, size, stored - consumed, entry.name)
    entry.size = size
    return consumed


def extents(numbers: list[int], size: int, stored: int, name: bytes) -> list[Extent]:
    """Pair offsets with lengths and check that they ascend within the file and use up exactly what is stored."""
    found = [Extent(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=False)]
    ascending = all(a.offset + a.length <= b.offset for a, b in pairwise(found))
    inside = not found or (found[0].offset >= 0 and found[-1].offset + found[-1].length <= size)
    whole = len(numbers) % 2 == 0 and all(extent.length >= 0 for extent in found)
    if not (whole and ascending and inside and 0 <= size <= MAX_FILE and sum(e.length for e in found) == stored):
        raise LayerError(f"entry {shown(name)}: the map of this sparse file does not fit its {size} bytes, {stored} stored")
    return [extent for extent in found if extent.length]


def _old_map(header: bytes, stream: Stream) -> tuple[list[int], int]:
    """Old GNU: four pairs in the header, then blocks of 21 while a flag says so."""
    numbers = _octal_pairs(header[386:482])
    size = number(header[483:495], "sparse size")
    more = header[482]
    while more:
        block = stream.take(BLOCK)
        numbers += _octal_pairs(block[:504])
        more = block[504]
        if len(numbers) > 2 * MAX_EXTENTS:
            raise TooLarge(f"a sparse file in more than {MAX_EXTENTS} pieces")
    return numbers, size


def _octal_pairs(fields: bytes) -> list[int]:
    """Numbers of 12 bytes each, up to the first pair that is empty."""
    numbers = []
    for at in range(0, len(fields), 24):
        if not fields[at]:
            break
        numbers += [number(fields[at : at + 12], "sparse offset"), number(fields[at + 12 : at + 24], "sparse length")]
    return numbers


def _leading_map(stored: int, stream: Stream) -> tuple[list[int], int]:
    """Form 1.0: decimal lines in front of the content, first their number, filled up to whole blocks."""
    blocks: list[bytes] = []
    lines, wanted = 0, 1
    while lines < wanted:
        if len(blocks) * BLOCK + BLOCK > stored:
            raise LayerError("a sparse file whose map does not end")
        block = stream.take(BLOCK)
        blocks.append(block)
        lines += block.count(b"\n")
        if wanted == 1 and lines:
            count = decimal(b"".join(blocks).partition(b"\n")[0], b"sparse map")
            if count > MAX_EXTENTS:
                raise TooLarge(f"a sparse file in {count} pieces; at most {MAX_EXTENTS} are read")
            wanted = 1 + 2 * count
    numbers = b"".join(blocks).split(b"\n")[1:wanted]
    return [decimal(line, b"sparse map") for line in numbers], len(blocks) * BLOCK

"""What extension headers say: pax records, and the maps of sparse files. Pure.

Sparse maps come in four forms (GNU tar manual, "Storing Sparse Files"): in the old GNU header itself, in repeated pax records
(0.0), in one pax record (0.1), and in front of the file's content (1.0).
"""

from __future__ import annotations

from itertools import pairwise

from services.unpacker.tar.entry import Entry, Stretch
from services.unpacker.tar.fields import decimal, nanoseconds, number
from services.unpacker.tar.invalid import LayerError, TooLarge, shown
from services.unpacker.tar.stream import BLOCK, Stream

MAX_EXTENTS = 1_000_000
MAX_FILE = 1 << 62
_XATTR = b"SCHILY.xattr."
_NAMES = (b"path", b"linkpath", b"GNU.sparse.name")
_OFFSET, _LENGTH, _MAP = b"GNU.sparse.offset", b"GNU.sparse.numbytes", b"GNU.sparse.map"
_DIGITS = 20
"""Characters in which the length of a record is looked for."""


def records(body: bytes) -> dict[bytes, bytes]:
    """Read the records of a pax header; the last of a key wins.

    The repeated `GNU.sparse.offset` and `.numbytes` of sparse form 0.0 are gathered under `GNU.sparse.map`, as in form 0.1.

    Raises:
        LayerError: a record's length, its `=` or its end is not where it should be; a key holds a zero byte, or the value of
            one that is a name does; a sparse map has its numbers in another order.
    """
    found: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    at, end = 0, len(body)
    while at < end:
        key, value, at = _record(body, at, end)
        if b"\0" in key or (key in _NAMES and b"\0" in value):
            raise LayerError(f"a pax header with a zero byte in {shown(key)}")
        if key in (_OFFSET, _LENGTH):
            if key != (_LENGTH if len(pairs) % 2 else _OFFSET) or b"," in value:
                raise LayerError("a pax header whose sparse map has its numbers in another order")
            pairs.append(value)
        else:
            found[key] = value
    if pairs:
        found[_MAP] = b",".join(pairs)
    return found


def _record(body: bytes, at: int, end: int) -> tuple[bytes, bytes, int]:
    """Key and value of the record at `at`, and where the next one begins: always further on."""
    space = body.find(b" ", at, at + _DIGITS)
    digits = body[at:space] if space > at else b""
    length = int(digits) if digits.isdigit() else 0
    after = at + length
    # Behind the space there is at least `k=` and the newline.
    if length < len(digits) + 4 or after > end or body[after - 1] != 0x0A:
        raise LayerError(f"a pax header with a broken record at byte {at}")
    key, equals, value = body[space + 1 : after - 1].partition(b"=")
    if not equals or not key:
        raise LayerError(f"a pax header with a broken record at byte {at}")
    return key, value, after


def apply(entry: Entry, extra: dict[bytes, bytes]) -> None:
    """Let pax records override what the header says. An empty value leaves the header's (Go, and so all container tools)."""
    for key, value in extra.items():
        if key.startswith(_XATTR):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[len(_XATTR) :]] = value
        elif value:
            match key:
                case b"path":
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


def sparse_form(extra: dict[bytes, bytes]) -> bytes:
    """The form in which pax records describe a sparse file: `0`, `1`, or nothing where they describe none.

    As Go decides it: records of a version that is not known, or a name alone, make no sparse file.
    """
    major, minor = extra.get(b"GNU.sparse.major", b""), extra.get(b"GNU.sparse.minor", b"")
    if not major and not minor:
        return b"0" if extra.get(_MAP) else b""
    return major if (major, minor) in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")) else b""


def open_sparse(entry: Entry, header: bytes, extra: dict[bytes, bytes], form: bytes, stream: Stream) -> int:
    """Find the map of a sparse file, and put it, the true name and the true length into the entry.

    Args:
        form: see `sparse_form`; not looked at where the header itself is one of a sparse file.

    Returns the bytes of the entry's stored content that were read for it.

    Raises:
        LayerError: the map is none, or does not fit the file.
    """
    stored = entry.size
    consumed = 0
    if header[156:157] == b"S":
        numbers, size = _old_map(header, stream)
    else:
        entry.name = extra.get(b"GNU.sparse.name") or entry.name
        told = extra.get(b"GNU.sparse.size") or extra.get(b"GNU.sparse.realsize")
        size = decimal(told, b"GNU.sparse.size") if told else stored
        if form == b"1":
            numbers, consumed = _leading_map(stored, stream)
        else:
            listed = extra.get(_MAP, b"")
            numbers = [decimal(part, _MAP) for part in listed.split(b",")] if listed else []
    entry.sparse = extents(numbers, size, stored - consumed, entry.name)
    entry.size = size
    return consumed


def extents(numbers: list[int], size: int, stored: int, name: bytes) -> list[Stretch]:
    """Pair offsets with lengths and check that they ascend within the file and use up exactly what is stored."""
    found = [Stretch(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=False)]
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
            if not 0 <= count <= MAX_EXTENTS:
                raise TooLarge(f"a sparse file in {count} pieces; at most {MAX_EXTENTS} are read")
            wanted = 1 + 2 * count
    numbers = b"".join(blocks).split(b"\n")[1:wanted]
    return [decimal(line, b"sparse map") for line in numbers], len(blocks) * BLOCK

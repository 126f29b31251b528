"""Layers: archives, pax records, compression."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from contextlib import suppress

import zstandard
from hypothesis import strategies as st

from services.unpacker.tar import zstd
from services.unpacker.tar.archive import Archive
from services.unpacker.tar.compression import chunks
from services.unpacker.tar.extensions import records
from services.unpacker.tar.fields import decimal, nanoseconds, number, owner
from services.unpacker.tar.invalid import LayerError
from services.unpacker.tree.plan import plan
from tests.fuzz.target import Target, bounded, nearly
from tests.support.odd_tars import END, ENDINGS, READ, REFUSED, record

_BLOCK = 512
_TARS = [*READ.values(), *REFUSED.values(), *ENDINGS.values(), END]
_WORDS = [
    *(bytes([each]) for each in b"xgXLKS05123467\0"),
    *(b"GNU.sparse.map=", b"GNU.sparse.major=1", b"path=", b"size=", b"99 ", b"0 ", b"..", b"/", b".wh.", b".wh..wh..opq"),
    *(b"\x80" + bytes(11), b"\xff" * 12, b"ustar\x0000", b"ustar  \0", b"tar\0", bytes(_BLOCK)),
]


def summed(data: bytes) -> bytes:
    """The same with checksums that are right again wherever a header may stand, so that more is looked at."""
    fixed = bytearray(data)
    for at in range(0, len(fixed) - _BLOCK + 1, _BLOCK):
        if fixed[at + 257 : at + 262] == b"ustar":
            fixed[at + 148 : at + 156] = b" " * 8
            fixed[at + 148 : at + 156] = b"%06o\0 " % sum(fixed[at : at + _BLOCK])
    return bytes(fixed)


def read_archive(drawn: tuple[bytes, int, bool]) -> None:
    """To its end, content and all; each entry has a place, or is refused."""
    data, piece, right = drawn
    data = summed(data) if right else data
    content = 0
    with suppress(LayerError), bounded(len(data)):
        archive = Archive(iter([data[at : at + piece] for at in range(0, len(data), piece)]))
        for entry in archive:
            with suppress(LayerError):
                step = plan(entry)
                assert b".." not in step.parent.split(b"/") and b"/" not in step.name
            assert (-1 <= entry.uid < 1 << 32 and entry.size >= 0) or entry.kind != b"0"
            while (view := archive.data()) is not None:
                content += len(view)
    assert content <= len(data)


def read_records(drawn: tuple[bytes, dict[bytes, bytes]]) -> None:
    """Any bytes are read or refused, and what was written is read again."""
    body, written = drawn
    with suppress(LayerError), bounded(len(body)):
        records(body)
    assert records(b"".join(record(key, value) for key, value in written.items())) == written
    for value in written.values():
        for parse in (lambda v: decimal(v, b"x"), nanoseconds, lambda v: number(v or b"\0", "x")):
            with suppress(LayerError):
                assert -1 <= owner(parse(value)) < (1 << 32) - 1


def read_stored(drawn: tuple[bytes, list[tuple[int, bytes]], int]) -> None:
    """Read to its end in bounded pieces, or refused."""
    whole, breaks, cut = drawn
    data = bytearray(whole)
    for at, piece in breaks:
        data[at % (len(data) or 1) : at % (len(data) or 1) + len(piece)] = piece
    stored = bytes(data[: cut or None])
    with suppress(LayerError), bounded(len(stored) + 4000):
        for chunk in chunks(io.BytesIO(stored), window=1 << 20):
            assert 0 < len(chunk) <= 1 << 20 or not stored
    with bounded(len(stored)):
        watched = zstd.Watched(io.BytesIO(stored))
        while watched.read(1 + len(stored) % 7):
            pass


KEYS = st.binary(min_size=1, max_size=12).filter(lambda key: not {0, ord("=")} & set(key) and not key.startswith(b"GNU.sparse"))
STORED = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda pack, data: pack(data),
        st.sampled_from([gzip.compress, zstandard.compress, bz2.compress, lzma.compress, bytes]),
        st.one_of(st.binary(max_size=300), st.sampled_from(_TARS)),
    ),
    st.builds(
        lambda n, size: b"%c\x2a\x4d\x18" % (0x50 + n) + size.to_bytes(4, "little"), st.integers(0, 15), st.integers(0, 99)
    ),
    st.just(bytes(40)),
)

TARGETS = (
    Target("tar", st.tuples(nearly(_TARS, _WORDS), st.sampled_from([1 << 20, 512, 511, 100, 1]), st.booleans()), read_archive),
    Target(
        "pax",
        st.tuples(
            nearly([record(b"path", b"name") + record(b"mtime", b"-1.5"), record(b"GNU.sparse.offset", b"1")], _WORDS),
            st.dictionaries(KEYS, st.one_of(st.binary(max_size=30), st.from_regex(rb"[-+0-9_.]{0,20}", fullmatch=True))),
        ).filter(lambda drawn: not any(b"\0" in value for value in drawn[1].values())),
        read_records,
    ),
    Target(
        "compression",
        st.tuples(
            st.lists(STORED, max_size=5).map(b"".join),
            st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=4)), max_size=4),
            st.integers(0, 4000),
        ),
        read_stored,
    ),
)

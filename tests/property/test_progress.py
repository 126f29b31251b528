"""Every loop of the parsers gets on: whatever the bytes, a bounded number of steps for each of them.

What is counted are lines that were run (`support/steps.py`), so that a loop that stands still is a failure with its bytes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from contextlib import suppress

import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.unpacker.tar import zstd
from services.unpacker.tar.archive import Archive
from services.unpacker.tar.compression import chunks
from services.unpacker.tar.extensions import records
from services.unpacker.tar.invalid import LayerError
from services.unpacker.tree.plan import clean
from tests.support.odd_tars import END, READ, REFUSED, extension, file, header, padded, record
from tests.support.steps import at_most

_OVERHEAD, _EACH = 2000, 40
"""Lines for nothing at all, and for each byte: ten times what was seen."""

always = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def steps(data: bytes) -> int:
    return _OVERHEAD + _EACH * len(data)


def read_archive(data: bytes, piece: int = 1 << 20) -> None:
    """To its end, content and all."""
    with suppress(LayerError), at_most(steps(data)):
        archive = Archive(iter([data[at : at + piece] for at in range(0, len(data), piece)]))
        for _ in archive:
            while archive.data() is not None:
                pass
        archive.drain()


def read_stored(data: bytes) -> None:
    with suppress(LayerError), at_most(steps(data) + 40 * 32):
        for _ in chunks(io.BytesIO(data)):
            pass


RECORDS = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(record, st.sampled_from([b"path", b"size", b"GNU.sparse.map", b"SCHILY.xattr.a"]), st.binary(max_size=30)),
        st.builds(lambda number, rest: b"%d %s" % (number, rest), st.integers(-2, 60), st.binary(max_size=30)),
    ),
    max_size=6,
).map(b"".join)


@always
@given(body=RECORDS)
@example(body=record(b"path", b"a") + b"\0")
@example(body=record(b"path", b"a") + b"\n")
@example(body=record(b"path", b"a") + b"0 ")
@example(body=b" " * 40)
@example(body=b"-9 path=a\n")
@example(body=b"0" * 500 + b" a=b\n")
def test_pax_records(body: bytes) -> None:
    with suppress(LayerError), at_most(steps(body)):
        records(body)
    read_archive(extension(b"x", body) + header() + END)


BLOCKS = st.lists(
    st.one_of(
        st.binary(max_size=600).map(padded),
        st.builds(extension, st.sampled_from([b"x", b"g", b"L", b"K", b"X"]), st.binary(max_size=700)),
        st.builds(file, st.sampled_from([b"f", b"d/", b""]), st.binary(max_size=700)),
        st.builds(
            lambda flag, size: header(flag=flag, size=size, tail=b"\1" * 12),
            st.sampled_from([b"\0", b"0", b"1", b"5", b"S", b"x", b"L", b"\xff"]),
            st.binary(min_size=12, max_size=12),
        ),
        st.just(bytes(512)),
    ),
    max_size=8,
).map(b"".join)


@always
@given(data=BLOCKS, cut=st.integers(0, 5000), piece=st.sampled_from([1 << 20, 512, 511, 1]))
def test_archives(data: bytes, cut: int, piece: int) -> None:
    read_archive(data[: cut or None], piece)


def test_the_odd_archives() -> None:
    for data in (*READ.values(), *REFUSED.values()):
        for cut in range(0, len(data), 37):
            read_archive(data[:cut])


PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, zstandard.compress, bz2.compress, lzma.compress, bytes]


@always
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(lambda pack, data: pack(data), st.sampled_from(PACKERS), st.binary(max_size=300)),
            st.builds(lambda n, size: b"%c\x2a\x4d\x18" % (0x50 + n) + size.to_bytes(4, "little"), st.integers(0, 15),
                      st.integers(0, 99)),
            st.just(bytes(40)),
        ),
        max_size=6,
    ),
    cut=st.integers(0, 2000),
)  # fmt: skip
def test_compression(pieces: list[bytes], cut: int) -> None:
    read_stored(b"".join(pieces)[: cut or None])


@always
@given(data=st.binary(max_size=400), feed=st.sampled_from([1, 3, 1000]))
def test_zstd_framing(data: bytes, feed: int) -> None:
    """The walk from header to header, whatever the decompressor would say of the bytes."""
    with at_most(2 * steps(data) + 40 * len(data)):
        watched = zstd.Watched(io.BytesIO(b"\x28\xb5\x2f\xfd" + data))
        while watched.read(feed):
            pass


@always
@given(name=st.lists(st.sampled_from([b"..", b".", b"a", b"", b"/"])).map(b"/".join))
def test_names(name: bytes) -> None:
    with suppress(LayerError), at_most(steps(name)):
        clean(name)

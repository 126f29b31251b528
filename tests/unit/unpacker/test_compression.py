"""Stored layer → tar."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard

from services.unpacker.tar.compression import CHUNK, chunks, hashed
from services.unpacker.tar.invalid import LayerError, TooLarge, Truncated, Unsupported
from tests.support.layers import entry, tar
from tests.support.odd_tars import header

TAR = tar(entry("f", content=os.urandom(300_000) + bytes(3_000_000)), entry("g", content=b"abc" * 100_000))
SKIPPABLE = b"\x5a\x2a\x4d\x18\x04\0\0\0skip"


class Feed:
    """A source that hands out a few bytes at a time."""

    def __init__(self, data: bytes, most: int = 1 << 17) -> None:
        self._data = io.BytesIO(data)
        self._most = most

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._most))


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=options.get("checksum", True), level=1).compress(data)


def zstd_stream(data: bytes) -> bytes:
    """Without the content's size in the header."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


def zstd_window(data: bytes, window: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window.bit_length() - 1, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(data) + compressor.flush()


def xz_window(data: bytes, window: int) -> bytes:
    return lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": window}])


PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, zstd, zstd_stream, bz2.compress, lzma.compress]


@pytest.mark.parametrize("pack", [*PACKERS, bytes])
@pytest.mark.parametrize("most", [7, 1000, 1 << 17])
def test_round_trip(pack: Callable[[bytes], bytes], most: int) -> None:
    small = TAR[:20_000]
    assert b"".join(chunks(Feed(pack(small), most))) == small
    if most > 1000:
        assert b"".join(chunks(Feed(pack(TAR), most))) == TAR


@pytest.mark.parametrize("pack", PACKERS)
def test_several_members(pack: Callable[[bytes], bytes]) -> None:
    assert b"".join(chunks(Feed(pack(TAR[:5000]) + pack(TAR[5000:6000]) + pack(b"") + pack(TAR[6000:])))) == TAR


def test_skippable_frames_between_zstd_frames() -> None:
    stored = SKIPPABLE + zstd(TAR[:5000], checksum=False) + SKIPPABLE + zstd(TAR[5000:]) + SKIPPABLE
    for most in (5, 1 << 17):
        assert b"".join(chunks(Feed(stored, most))) == TAR


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_zeros_may_fill_up_the_end(pack: Callable[[bytes], bytes]) -> None:
    assert b"".join(chunks(Feed(pack(TAR) + bytes(100_000)))) == TAR
    assert b"".join(chunks(Feed(pack(TAR[:3000]) + bytes(10) + pack(TAR[3000:]), 3))) == TAR


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("missing", [1, 3, 8, 100])
def test_cut_off(pack: Callable[[bytes], bytes], missing: int) -> None:
    with pytest.raises(Truncated, match="ends in the middle"):
        list(chunks(Feed(pack(TAR)[:-missing])))


@pytest.mark.parametrize("pack", PACKERS)
def test_followed_by_something_else(pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(LayerError):
        list(chunks(Feed(pack(TAR) + b"something else")))


@pytest.mark.parametrize("pack", [gzip.compress, zstd, bz2.compress, lzma.compress])
def test_damaged(pack: Callable[[bytes], bytes]) -> None:
    stored = bytearray(pack(TAR))
    stored[len(stored) // 2] ^= 0xFF
    with pytest.raises(LayerError):
        list(chunks(Feed(bytes(stored))))


def test_gzip_checks_its_own_checksum_and_length() -> None:
    stored = gzip.compress(TAR)
    for at in (-8, -4):
        broken = bytearray(stored)
        broken[at] ^= 1
        with pytest.raises(LayerError):
            list(chunks(Feed(bytes(broken))))


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04" + bytes(600), b"\x7fELF" * 300])
def test_what_is_no_layer(content: bytes) -> None:
    if content == b"":
        assert b"".join(chunks(Feed(content))) == b""
        return
    with pytest.raises(Unsupported, match="neither a tar"):
        list(chunks(Feed(content)))


def test_encrypted_layers_are_named() -> None:
    with pytest.raises(Unsupported, match="encrypted"):
        list(chunks(Feed(b"x"), "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"))


def test_the_label_may_lie() -> None:
    assert b"".join(chunks(Feed(zstd(TAR)), "application/vnd.oci.image.layer.v1.tar+gzip")) == TAR


@pytest.mark.parametrize("pack", [gzip.compress, zstd, zstd_stream])
def test_a_bomb_takes_a_bounded_amount_of_memory(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(200 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="PULLONCE_LAYER_MAX_BYTES"):
            for chunk in hashed(chunks(Feed(bomb)), hashlib.sha256(), 100 << 20):
                assert len(chunk) <= CHUNK
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [b"BZh91AY", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\xfd7zXZ"])
@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", b""])
def test_a_plain_tar_whose_first_name_begins_like_compression(name: bytes, magic: bytes) -> None:
    data = header(name, magic=magic) + bytes(1024)
    assert b"".join(chunks(Feed(data))) == data


@pytest.mark.parametrize("name, pack", [("zstd", zstd_window), ("xz", xz_window)])
def test_windows_are_limited(name: str, pack: Callable[[bytes, int], bytes]) -> None:
    packed = pack(TAR, 1 << 24)
    assert b"".join(chunks(Feed(packed), window=1 << 24)) == TAR
    with pytest.raises(TooLarge, match=f"the {name} of the layer needs a larger window"):
        list(chunks(Feed(packed), window=1 << 23))

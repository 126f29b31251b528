"""How a layer is stored → its tar, in chunks of bounded size.

The bytes decide, not the media type: registries serve layers whose label lies. The header block of a tar is one whatever the
name in it begins with, since it carries its own checksum. gzip may come in several members and zstd in
several frames with skippable ones between (eStargz, zstd:chunked); both are read to the end and refused when cut off.
"""

import bz2
import hashlib
import lzma
from collections.abc import Callable, Iterator
from typing import Protocol

from isal import igzip_lib

from services.unpacker.tar import zstd
from services.unpacker.tar.archive import check
from services.unpacker.tar.invalid import LayerError, TooLarge, Truncated, Unsupported
from services.unpacker.tar.stream import BLOCK

CHUNK = 1 << 20
"""Bytes of tar in one piece, at most: what bounds the memory whatever the layer claims to expand to."""
READ = 1 << 17
"""Bytes read at a time."""

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"


_IsalError: type[Exception] = igzip_lib.error  # type: ignore[assignment,unused-ignore]


class ByteSource(Protocol):
    """Where a layer's bytes come from; an empty answer is their end."""

    def read(self, size: int, /) -> bytes: ...


class _Decompressor(Protocol):
    """What bz2, lzma and isal agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


def chunks(source: ByteSource, media_type: str = "", *, window: int = 1 << 28) -> Iterator[bytes]:
    """The uncompressed tar of a stored layer.

    Args:
        window: bytes of memory that zstd and xz may use for what they refer back to.

    Raises:
        Unsupported: it is encrypted, or neither a tar nor compressed in a way that is known.
        LayerError: it is damaged, cut off, or followed by something else.
        TooLarge: it was compressed with a larger window.
    """
    if "+encrypted" in media_type.lower():
        raise Unsupported(f"the layer is encrypted ({media_type}); pull an image that is not")
    head = b""
    while len(head) < BLOCK and (more := source.read(READ)):
        head += more
    match compression_of(head):
        case "tar":
            return _plain(head, source)
        case "gzip":
            return _members(head, source, _gzip, _GZIP, "gzip")
        case "zstd":
            return zstd.decompress(_Headed(head, source), chunk=CHUNK, read=READ, window=window)
        case "bzip2":
            return _members(head, source, bz2.BZ2Decompressor, _BZIP2, "bzip2")
        case "xz":
            # What it needs beside its window: some 64 kB.
            return _members(head, source, lambda: lzma.LZMADecompressor(memlimit=window + (1 << 20)), _XZ, "xz")
    raise Unsupported(f"the layer ({media_type or 'no media type'}) is neither a tar nor gzip, zstd, bzip2 or xz of one")


def compression_of(head: bytes) -> str:
    """How bytes that begin so are compressed: `tar` where they are not; empty where it is nothing that is known.

    Args:
        head: the first 512 of them or more, all where there are fewer.
    """
    if _is_header(head):
        return "tar"
    if head.startswith(_GZIP):
        return "gzip"
    if zstd.is_frame(head):
        return "zstd"
    if head.startswith(_BZIP2):
        return "bzip2"
    if head.startswith(_XZ):
        return "xz"
    return "tar" if head[257:262] == b"ustar" or not head.strip(b"\0") else ""


def hashed(tar: Iterator[bytes], digest: "hashlib._Hash", limit: int) -> Iterator[bytes]:
    """Pass a tar on while hashing it, up to a limit of bytes.

    Raises:
        TooLarge: there is more.
    """
    size = 0
    for chunk in tar:
        size += len(chunk)
        if size > limit:
            limits = "PULLONCE_LAYER_MAX_BYTES and PULLONCE_LAYER_MAX_RATIO raise the limit"
            raise TooLarge(f"the layer expands to more than {limit} bytes; {limits}")
        digest.update(chunk)
        yield chunk


def _gzip() -> _Decompressor:
    made: _Decompressor = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return made


def _plain(head: bytes, source: ByteSource) -> Iterator[bytes]:
    yield head
    while data := source.read(CHUNK):
        yield data


def _members(head: bytes, source: ByteSource, new: Callable[[], _Decompressor], magic: bytes, name: str) -> Iterator[bytes]:
    """Members one behind another; zero bytes may fill up the end (tapes, and `gzip` itself reads so)."""
    data = head
    while data:
        member = new()
        while not member.eof:
            piece = _expand(member, data, name)
            data = b""
            if piece:
                yield piece
            elif not member.eof and not (data := source.read(READ)):
                raise Truncated(f"the {name} of the layer ends in the middle")
        data = _next_member(member.unused_data, source, magic, name)


def _expand(member: _Decompressor, data: bytes, name: str) -> bytes:
    try:
        return member.decompress(data, CHUNK)
    except (_IsalError, lzma.LZMAError, OSError, EOFError, ValueError) as exc:
        if "emory usage limit" in str(exc):
            raise zstd.window_too_large(name) from exc
        raise LayerError(f"the {name} of the layer is damaged: {exc}") from exc


def _next_member(data: bytes, source: ByteSource, magic: bytes, name: str) -> bytes:
    """What follows a member: another one, or nothing but zeros up to the end."""
    while True:
        data = data.lstrip(b"\0")
        while data and len(data) < len(magic) and (more := source.read(READ)):
            data += more
        if data:
            break
        data = source.read(READ)
        if not data:
            return b""
    if not data.startswith(magic):
        raise LayerError(f"the {name} of the layer is followed by something else")
    return data


class _Headed:
    """A source whose first bytes were read already."""

    def __init__(self, head: bytes, source: ByteSource) -> None:
        self._head = head
        self._source = source

    def read(self, size: int, /) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._source.read(size)


def _is_header(head: bytes) -> bool:
    """Whether the first block is the header of a tar entry. One from before ustar has no magic: the checksum tells."""
    if len(head) < BLOCK or not head[148:156].strip(b" \0"):
        return False
    try:
        check(head[:BLOCK])
    except LayerError:
        return False
    return True

"""`Content-Encoding` undone: a digest is over the content, not over what something on the way made of it. Pure.

It is asked for `identity`, and some servers compress all the same; others keep the header as a label of what they store, so
that the bytes of a gzip layer bear it and are the blob itself. Source: RFC 9110 section 8.4.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from pullonce.errors import Permanent
from schemas.oci import Descriptor

_PIECE = 1 << 20
_SLICE = 16 << 10
"""Bytes that are undone at a time: what lies behind a member is copied once for each member."""
_EMPTY = 64
"""Members in a row that may hold nothing: tools end a file by one."""
_SLACK = 4 << 20
"""Bytes that may go into an encoding for nothing; beyond them, four for each that comes out in the end."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_MOST = 3
"""Encodings on each other: more is nobody's mistake."""


class Broken(Exception):
    """What came is not in the encoding that its header names, or ended early."""


class Decoder(Protocol):
    """Undoes one encoding, piece by piece."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes hold, in pieces of at most 1 MiB. Raises Broken."""
        ...

    def end(self) -> None:
        """Nothing more comes. Raises Broken where something is missing."""
        ...


class _Zlib:
    """gzip, with as many members as there are, or deflate."""

    def __init__(self, bits: int, *, members: bool) -> None:
        self._bits = bits
        self._members = members
        self._inner = zlib.decompressobj(bits)
        self._gave = False
        self._empty = 0
        self._ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        try:
            while data and not self._ended:
                if self._inner.eof:
                    self._ended = not self._members or not data.startswith(_GZIP[:1])
                    if self._ended:
                        return  # padding behind the end
                    self._next()
                piece = self._inner.decompress(data, _PIECE)
                data = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
                if piece:
                    self._gave = True
                    yield piece
        except zlib.error as exc:
            raise Broken(str(exc)) from exc

    def _next(self) -> None:
        """Another member begins."""
        self._empty = 0 if self._gave else self._empty + 1
        if self._empty >= _EMPTY:
            raise Broken(f"{_EMPTY} members in a row that hold nothing")
        self._gave = False
        self._inner = zlib.decompressobj(self._bits)

    def end(self) -> None:
        if not self._inner.eof:
            raise Broken("it ended early")


_KNOWN: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib(31, members=True),
    "x-gzip": lambda: _Zlib(31, members=True),
    "deflate": lambda: _Zlib(15, members=False),
}


class _Chain:
    """Several encodings, the last one undone first. What goes into each is bounded by what comes out of all."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders
        self._in = [0] * len(decoders)
        self._out = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield from self._through(data, 0)

    def _through(self, data: bytes, stage: int) -> Iterator[bytes]:
        if stage == len(self._decoders):
            self._out += len(data)
            yield data
            return
        for start in range(0, len(data), _SLICE):
            part = data[start : start + _SLICE]
            self._in[stage] += len(part)
            if self._in[stage] > 4 * self._out + _SLACK:
                raise Broken("it expands to nothing")
            for piece in self._decoders[stage].feed(part):
                yield from self._through(piece, stage + 1)

    def end(self) -> None:
        for decoder in self._decoders:
            decoder.end()


def encodings(header: str) -> list[str]:
    """The encodings that a header names, without those that change nothing."""
    names = (name.strip().lower() for name in header.split(","))
    return [name for name in names if name not in ("", "identity", "none", "utf-8")]


def decoder_of(names: list[str], what: str) -> Decoder:
    """What undoes some encodings, in the order in which they were applied.

    Raises:
        Permanent: `registry.encoding`; one is not known, or there are more than anybody means.
    """
    if len(names) > _MOST or not all(name in _KNOWN for name in names):
        why = f"{what} comes with the Content-Encoding {', '.join(names)[:60]!r}, though it was asked for without"
        raise Permanent(f"{why}; known are gzip and deflate", code="registry.encoding")
    return _Chain([_KNOWN[name]() for name in reversed(names)])


def is_label(blob: Descriptor, length: int | None, first: bytes) -> bool:
    """Whether an encoding is only a label of what the blob is: its bytes are the blob as they come.

    Args:
        length: of the body as it comes; None where it is not told.
        first: what the first bytes hold once the encoding is undone; empty where it could not be.
    """
    if length == blob.size:
        return True
    if length is not None:
        return False
    # Nothing says how long it is. A layer that is called gzip is one inside, if it was compressed once more on the way.
    promised = _GZIP if "gzip" in blob.media_type else _ZSTD if "zstd" in blob.media_type else b""
    return not first if not promised else not first.startswith(promised)

"""zstd → bytes in chunks of bounded size, across frames, and refused when cut off.

The binding's one bounded reader goes across frames but takes any end of its input for the end of the data. So the frames are
walked beside it (RFC 8878, section 3.1), from header to header: a few operations a block.
"""

from collections.abc import Iterator
from typing import IO, Protocol, cast

import zstandard

from services.unpacker.tar.invalid import LayerError, TooLarge, Truncated

_MAGIC = b"\x28\xb5\x2f\xfd"
_DICTIONARY = (0, 1, 2, 4)
_CONTENT = (0, 2, 4, 8)
_RLE = 1


class Readable(Protocol):
    """Where the compressed bytes come from; an empty answer is their end."""

    def read(self, size: int, /) -> bytes: ...


def is_frame(head: bytes) -> bool:
    """Whether bytes begin like a zstd frame, or like one to be skipped."""
    return head.startswith(_MAGIC) or _is_skippable(head)


def _is_skippable(head: bytes) -> bool:
    return len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def window_too_large(name: str) -> TooLarge:
    """Whoever compressed a layer did it with more memory than may be used to read it."""
    return TooLarge(f"the {name} of the layer needs a larger window to be read; PULLONCE_ZSTD_WINDOW raises the limit")


def decompress(source: Readable, *, chunk: int, read: int, window: int) -> Iterator[bytes]:
    """What the frames hold, at most `chunk` bytes at a time; `read` bytes are asked for at a time.

    Args:
        window: bytes that a frame may refer back to, at most 2 GiB.

    Raises:
        TooLarge: a frame refers back to more.
        Truncated: the bytes end within a frame.
        LayerError: they are damaged.
    """
    watched = Watched(source)
    decompressor = zstandard.ZstdDecompressor(max_window_size=window)
    reader = decompressor.stream_reader(cast(IO[bytes], watched), read_size=read, read_across_frames=True)
    try:
        while piece := reader.read(chunk):
            yield piece
    except zstandard.ZstdError as exc:
        if "too much memory" in str(exc):
            raise window_too_large("zstd") from exc
        raise LayerError(f"the zstd of the layer is damaged: {exc}") from exc
    if not watched.complete:
        raise Truncated("the zstd of the layer ends in the middle")


class Watched:
    """A source that knows whether what was read of it ends where a frame ends."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._pending = b""
        self._skip = 0
        self._in_frame = False
        self._checksum = 0

    @property
    def complete(self) -> bool:
        """Nothing of a frame that began is missing."""
        return not (self._pending or self._skip or self._in_frame)

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        passed = min(self._skip, len(data))
        self._skip -= passed
        if passed < len(data):
            self._pending += data[passed:]
            self._walk()
        return data

    def _walk(self) -> None:
        """Step from header to header; what lies between them is passed over, not gathered."""
        data, at = self._pending, 0
        while (header := self._block(data, at) if self._in_frame else self._frame(data, at)) and at < len(data):
            at += header + self._skip
            self._skip = max(0, at - len(data))
        self._pending = data[at:]

    def _frame(self, data: bytes, at: int) -> int:
        """Length of the frame header that stands here; 0 while it is incomplete. The decompressor refuses what is none."""
        if _is_skippable(data[at : at + 4]):
            if len(data) < at + 8:
                return 0
            self._skip = int.from_bytes(data[at + 4 : at + 8], "little")
            return 8
        if len(data) < at + 5:
            return 0
        descriptor = data[at + 4]
        single = descriptor >> 5 & 1
        content = _CONTENT[descriptor >> 6] or single
        length = 5 + (1 - single) + _DICTIONARY[descriptor & 3] + content
        if len(data) < at + length:
            return 0
        self._in_frame = True
        self._checksum = 4 if descriptor & 4 else 0
        return length

    def _block(self, data: bytes, at: int) -> int:
        """The same for a block header; behind the last block the frame's checksum is passed over too."""
        if len(data) < at + 3:
            return 0
        header = int.from_bytes(data[at : at + 3], "little")
        self._skip = 1 if header >> 1 & 3 == _RLE else header >> 3
        if header & 1:
            self._in_frame = False
            self._skip += self._checksum
        return 3

"""Exact reads over chunks of any size, without copying what can be looked at in place."""

from collections.abc import Iterator

from services.unpacker.tar.invalid import Truncated

BLOCK = 512


class Stream:
    """Bytes of a tar, pulled chunk by chunk from an iterator.

    Raises:
        Truncated: the chunks end before what was asked for; from every method but `pad`.
    """

    __slots__ = ("_buffer", "_chunks", "_end", "_offset", "_view", "pulled")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self._view = memoryview(b"")
        self._offset = 0
        self._end = 0
        self.pulled = 0
        """Chunks so far."""

    def _fill(self) -> bool:
        """Step to the next chunk that holds anything; False where there is none."""
        for chunk in self._chunks:
            self.pulled += 1
            if chunk:
                self._buffer = chunk
                self._view = memoryview(chunk)
                self._offset = 0
                self._end = len(chunk)
                return True
        return False

    def block(self) -> bytes | None:
        """The next 512 bytes; None where the chunks end exactly here."""
        offset = self._offset
        if self._end - offset >= BLOCK:
            self._offset = offset + BLOCK
            return self._buffer[offset : offset + BLOCK]
        if offset == self._end and not self._fill():
            return None
        return self.take(BLOCK)

    def take(self, size: int) -> bytes:
        """The next `size` bytes in one piece: for headers, not for content."""
        offset = self._offset
        if self._end - offset >= size:
            self._offset = offset + size
            return self._buffer[offset : offset + size]
        parts = []
        while size:
            part = self.some(size)
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def some(self, limit: int) -> memoryview:
        """1 to `limit` of the next bytes, as many as lie in one piece. The view is good until the next call."""
        offset = self._offset
        if offset == self._end:
            if not self._fill():
                raise Truncated(f"the tar ends {limit} bytes too early")
            offset = 0
        end = min(offset + limit, self._end)
        self._offset = end
        return self._view[offset:end]

    def skip(self, size: int) -> None:
        """Pass over the next `size` bytes."""
        while size > self._end - self._offset:
            size -= self._end - self._offset
            if not self._fill():
                raise Truncated(f"the tar ends {size} bytes too early")
        self._offset += size

    def pad(self, size: int) -> None:
        """Pass over what is there of the next `size` bytes: an archive may end without its last padding."""
        while size > self._end - self._offset:
            size -= self._end - self._offset
            if not self._fill():
                self._offset = self._end
                return
        self._offset += size

    def drain(self) -> None:
        """Pull all that is left: what follows the end of the archive still counts for the diffID."""
        for _ in self._chunks:
            self.pulled += 1
        self._offset = self._end

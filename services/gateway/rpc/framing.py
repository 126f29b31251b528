"""Messages in a stream of gRPC, piece by piece. Source: gRPC over HTTP/2, "Length-Prefixed-Message"."""

from grpclib.protocol import Stream

PREFIX = 5
"""Bytes before each message: whether it is compressed, and its length."""
_PIECE = 1 << 16


class Cut(Exception):
    """A stream ended in the middle of a message."""


async def read(stream: Stream, size: int) -> bytes:
    """So many bytes, or none at the end.

    Raises:
        Cut: it ends before.
    """
    try:
        return await stream.recv_data(size)
    except AssertionError:
        raise Cut from None


async def more(stream: Stream, left: int) -> bytes:
    """The next piece of a message of which so much is left; empty only where nothing is.

    Raises:
        Cut: it ends in the middle of the message.
    """
    piece = await read(stream, min(left, _PIECE))
    if left and not piece:
        raise Cut
    return piece

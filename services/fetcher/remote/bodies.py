"""The body of an answer as it comes, and with its encoding undone."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import aiohttp

from pullonce.errors import Permanent
from schemas.oci import Descriptor
from services.fetcher.remote.encoding import Broken, Decoder, decoder_of, is_label

_TELLING = 4
"""Bytes of content by which a compressed layer is known."""


class Interrupted(Exception):
    """A body broke off."""


async def body_of(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The bytes as they come. Raises Interrupted."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise Interrupted(str(exc) or "no byte came in time") from exc


async def decoded(
    body: AsyncGenerator[bytes, None], decoder: Decoder, blob: Descriptor, length: int | None
) -> AsyncGenerator[bytes, None]:
    """A body whose encoding is undone, unless that turns out to be a label of what the blob is.

    What comes is held until that is known; the decoder bounds how much may come for nothing.

    Args:
        length: of the body as it comes; None where it is not told.

    Raises:
        Interrupted: it broke off, or its encoding is broken.
    """
    label: bool | None = None
    held, first = bytearray(), bytearray()
    try:
        async with aclosing(body):
            async for chunk in body:
                if label:
                    yield chunk
                    continue
                if label is None:
                    held += chunk
                try:
                    for piece in decoder.feed(chunk):
                        if label is False:
                            yield piece
                            continue
                        first += piece
                        if len(first) >= _TELLING:
                            label = is_label(blob, length, bytes(first))
                            if label:
                                break
                            held.clear()
                            yield bytes(first)
                except Broken:
                    if label is not None:
                        raise
                    label = True
                if label:
                    yield bytes(held)
        if label is None and len(held) == blob.size:
            yield bytes(held)
        elif not label:
            if label is None:
                yield bytes(first)
            decoder.end()
    except Broken as exc:
        raise Interrupted(f"its encoding is broken: {exc}") from exc


def undone(content: bytes, names: list[str], what: str, limit: int) -> bytes:
    """A document whose encoding is undone, as far as it may be long: of a longer one a little more.

    Raises:
        Permanent: `registry.encoding`.
    """
    decoder, parts, size = decoder_of(names, what), list[bytes](), 0
    try:
        for piece in decoder.feed(content):
            parts.append(piece)
            size += len(piece)
            if size > limit:
                return b"".join(parts)
        decoder.end()
    except Broken as exc:
        raise Permanent(f"the Content-Encoding of {what} is broken: {exc}", code="registry.encoding") from exc
    return b"".join(parts)

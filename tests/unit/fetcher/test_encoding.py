"""`Content-Encoding` undone: what holds nothing is bounded, and what comes before that is known is not lost."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import AsyncGenerator, Callable

import pytest

from schemas.oci import Descriptor, Digest
from services.fetcher.remote.bodies import Interrupted, decoded
from services.fetcher.remote.encoding import Broken, decoder_of

EMPTY = gzip.compress(b"")
CONTENT = random.Random(3).randbytes(300_000)
STORED = b"\0\0\0\xff\xff"
"""A block of deflate that holds nothing and is not the last one."""
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def fed(names: list[str], *chunks: bytes) -> bytes:
    decoder = decoder_of(names, "what")
    content = b"".join(piece for chunk in chunks for piece in decoder.feed(chunk))
    decoder.end()
    return content


def drops(content: bytes, size: int = 1) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_members_that_hold_nothing_are_bounded_in_a_row_and_not_between_others(coding: str, size: int) -> None:
    some = (EMPTY * 60 + gzip.compress(b"some")) * 20 + EMPTY
    assert fed([coding], *drops(some, size)) == b"some" * 20
    with pytest.raises(Broken, match="64 members in a row that hold nothing"):
        fed([coding], *drops(gzip.compress(b"some") + EMPTY * 100_000, size))


def stored(blocks: int) -> bytes:
    return b"\x78\x01" + STORED * blocks


NOTHING: dict[str, tuple[list[str], bytes]] = {
    "gzip": (["gzip"], EMPTY[:10] + STORED * 2_000_000),
    "deflate": (["deflate"], stored(2_000_000)),
    "members in gzip": (["x-gzip", "gzip"], gzip.compress(EMPTY * 1_000_000)),
    "deflate in gzip": (["deflate", "gzip"], gzip.compress(stored(2_000_000))),
    "deflate in deflate": (["deflate", "deflate"], zlib.compress(stored(2_000_000))),
    "padding in gzip": (["gzip", "gzip"], gzip.compress(gzip.compress(b"some") + bytes(8 << 20))),
    "three": (["deflate", "gzip", "gzip"], gzip.compress(gzip.compress(stored(2_000_000)))),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_what_expands_to_nothing_is_given_up(kind: str) -> None:
    names, sent = NOTHING[kind]
    with pytest.raises(Broken, match="nothing"):
        fed(names, *drops(sent, 1 << 20))


PACKS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("names", [["gzip"], ["deflate"], ["gzip", "deflate"], ["deflate", "x-gzip", "gzip"]])
@pytest.mark.parametrize("content", [CONTENT, bytes(20 << 20), b"", b"a"], ids=["random", "zeros", "nothing", "a byte"])
def test_what_holds_something_is_undone_in_any_pieces(names: list[str], content: bytes) -> None:
    sent = content
    for name in names:
        sent = PACKS[name](sent)
    assert fed(names, sent) == content
    assert fed(names, *drops(sent, 7)) == content


def test_what_lies_behind_the_end_stays_behind_it() -> None:
    behind = bytes(16 << 10) + b"\x1f" * (64 << 10)
    assert fed(["gzip"], gzip.compress(b"some") + behind) == b"some"
    assert fed(["gzip"], *drops(gzip.compress(b"some") + behind, 5)) == b"some"


async def sent(chunks: list[bytes]) -> AsyncGenerator[bytes, None]:
    for chunk in chunks:
        yield chunk


async def got(names: list[str], blob: bytes, chunks: list[bytes], media_type: str, *, told: bool = False) -> bytes:
    described = Descriptor(media_type=media_type, digest=Digest("sha256:" + "0" * 64), size=len(blob))
    length = sum(map(len, chunks)) if told else None
    return b"".join([each async for each in decoded(sent(chunks), decoder_of(names, "what"), described, length)])


@pytest.mark.parametrize("size", [1, 2, 5, 11, 1 << 20])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("content", [CONTENT, b"ab", b""], ids=["long", "two bytes", "nothing"])
async def test_a_label_loses_nothing_of_what_came_before_it_was_known(size: int, told: bool, content: bytes) -> None:
    """The blob is gzip and comes as it is, in packets that give nothing yet when they are undone."""
    blob = gzip.compress(content)
    for names in (["gzip"], ["x-gzip"], ["deflate"], ["gzip", "gzip"], ["deflate", "gzip"]):
        assert await got(names, blob, drops(blob, size), LAYER, told=told) == blob, names


@pytest.mark.parametrize("size", [1, 2, 5, 11, 1 << 20])
@pytest.mark.parametrize("names", [["gzip"], ["deflate"], ["deflate", "gzip"]])
async def test_a_layer_that_was_compressed_once_more_comes_out_in_any_packets(size: int, names: list[str]) -> None:
    whole = blob = gzip.compress(CONTENT[:20_000])
    for name in names:
        whole = PACKS[name](whole)
    assert await got(names, blob, drops(whole, size), LAYER) == blob
    plain = CONTENT[:3]
    packed = plain
    for name in names:
        packed = PACKS[name](packed)
    assert await got(names, plain, drops(packed, size), "") == plain


async def test_nothing_without_end_fills_no_memory_and_ends() -> None:
    """It is taken for a label, so it comes as it is, and is too long for the blob."""
    came = 0
    described = Descriptor(media_type=LAYER, digest=Digest("sha256:" + "0" * 64), size=1000)

    async def endless() -> AsyncGenerator[bytes, None]:
        yield b"\x78\x01"
        while True:
            yield STORED * 1000

    body = decoded(endless(), decoder_of(["deflate"], "what"), described, None)
    async for chunk in body:
        came += len(chunk)
        break
    await body.aclose()
    assert 1000 < came < 5 << 20


async def test_an_encoding_that_breaks_in_the_middle_is_an_interruption() -> None:
    whole = gzip.compress(CONTENT)
    with pytest.raises(Interrupted, match="ended early"):
        await got(["gzip"], CONTENT, drops(whole[:-20], 1000), "")

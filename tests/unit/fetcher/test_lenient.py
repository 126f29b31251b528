"""Heads of answers as they come over a real connection: in any packets, with interim answers, too long, too slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from services.fetcher.remote.lenient import LONGEST_HEAD, LenientHandler, make_lenient

HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 5000 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000 + b"\r\nContent-Length: 2\r\n\r\n",
]
KINDS = ["CRLF", "LF", "both", "early hints", "many interim ones", "long"]


def handler() -> LenientHandler:
    made = LenientHandler(asyncio.get_running_loop())
    made.set_response_params(
        read_until_eof=True, auto_decompress=False, max_line_size=LONGEST_HEAD, max_field_size=LONGEST_HEAD, max_headers=10_000
    )
    return made


@pytest.mark.parametrize("size", [1, 3, 1460, 1 << 20])
@pytest.mark.parametrize("head", HEADS, ids=KINDS)
async def test_a_head_is_read_in_any_packets(head: bytes, size: int) -> None:
    """Byte by byte, what came is not searched again: the long ones would take minutes."""
    made, sent = handler(), head + b"ok"
    for start in range(0, len(sent), size):
        made.data_received(sent[start : start + size])
    message, payload = await made.read()
    assert message.code == 200 and await payload.read() == b"ok"


async def test_a_head_without_end_is_refused_before_it_fills_the_memory() -> None:
    made = handler()
    made.data_received(b"HTTP/1.1 200 OK\r\n")
    for number in range(2 * LONGEST_HEAD // 1000):
        if made.exception() is None:
            made.data_received(f"X-{number}: {'x' * 1000}\r\n".encode())
    with pytest.raises(Exception, match="its head is longer than 1 MiB"):
        await made.read()


@asynccontextmanager
async def dripping(begin: bytes, more: Callable[[], bytes]) -> AsyncIterator[str]:
    """A server that goes on to send, but comes to no end."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(begin)
            while True:
                writer.write(more())
                await writer.drain()
                await asyncio.sleep(0.05)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


DRIPS: dict[str, tuple[bytes, bytes]] = {
    "a header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
}


@pytest.mark.parametrize("kind", DRIPS)
async def test_the_whole_head_must_come_in_time_and_not_each_byte_of_it(kind: str) -> None:
    begin, more = DRIPS[kind]
    timeout = aiohttp.ClientTimeout(total=None, sock_read=0.5)
    async with (
        dripping(begin, lambda: more) as url,
        aiohttp.ClientSession(connector=make_lenient(aiohttp.TCPConnector()), timeout=timeout) as session,
        asyncio.timeout(30),
    ):
        with pytest.raises(aiohttp.SocketTimeoutError):
            await session.get(url)

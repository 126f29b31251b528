"""How long a document may take: a server that drips is not silent, and must not be waited for like one that is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from services.fetcher.remote.answers import read_limited


@asynccontextmanager
async def answer(pieces: list[bytes], pause: float) -> AsyncIterator[aiohttp.ClientResponse]:
    """What a server sends piece by piece."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause)
        return response

    application = web.Application()
    application.router.add_get("/", drip)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as response:
            yield response
    finally:
        await runner.cleanup()


async def test_who_drips_is_left() -> None:
    async with answer([b"x"] * 1000, 0.05) as response:
        with pytest.raises(TimeoutError):
            await read_limited(response, 4096, within=0.3)


async def test_who_is_slow_and_goes_on_is_waited_for() -> None:
    async with answer([bytes(16_384)] * 4, 0.2) as response:
        assert len(await read_limited(response, 1 << 20, within=0.5)) == 65_536


async def test_no_more_is_read_than_may_be() -> None:
    async with answer([bytes(1000)] * 10, 0.0) as response:
        assert len(await read_limited(response, 2_500)) == 2_501

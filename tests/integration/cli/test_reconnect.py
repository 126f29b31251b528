"""What `pullonce pull` hears, and what it has to look for, when its connection breaks at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import nats

from schemas.subjects import EVENTS_STREAM
from tests.integration.cli.test_pull import LIMIT, Client
from tests.support.nats_server import NatsServer
from tests.support.scripted import completed, scripted

PATIENCE = "20"
"""Seconds, far fewer than those after which a client that hears nothing looks anyway."""


class Line:
    """The way to a server, which a test can cut.

    Attributes:
        url: where clients find it.
        heard: all that the server said to any client.
        deaf_after: nothing that the server says after this comes through, until `mend`.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.url = ""
        self.heard = bytearray()
        self.deaf_after = b""
        self._deaf = False
        self._more = asyncio.Condition()
        self._free = asyncio.Event()
        self._free.set()
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Line]:
        server = await asyncio.start_server(self._serve, "127.0.0.1")
        self.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            self._free.set()

    def cut(self) -> None:
        """Break all connections; new ones lead nowhere until `mend`."""
        self._free.clear()
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def mend(self) -> None:
        self.deaf_after = b""
        self._deaf = False
        self._free.set()

    async def until_heard(self, what: bytes) -> None:
        async with asyncio.timeout(LIMIT), self._more:
            await self._more.wait_for(lambda: what in self.heard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._free.wait()
        from_server, to_server = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers.append(to_server)
        await asyncio.gather(self._pass(reader, to_server), self._pass_back(from_server, writer))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
        sink.close()

    async def _pass_back(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                self.heard += data
                async with self._more:
                    self._more.notify_all()
                if not self._deaf:
                    sink.write(data)
                self._deaf = self._deaf or bool(self.deaf_after and self.deaf_after in data)
        sink.close()


async def test_an_ending_is_found_by_who_never_heard_that_the_request_was_stored(nats_server: NatsServer) -> None:
    async with scripted(nats_server.url) as script, Line(nats_server.url).laid() as line:
        script.answer = lambda request, sequence: None
        line.deaf_after = b"INFO"
        client = await Client.start("pull", "--json", "--timeout", PATIENCE, "redis", url=line.url)
        await script.until(lambda: bool(script.requests))
        sequence, request = script.requests[0]
        line.cut()
        await script.say(completed(request, sequence))
        line.mend()
        code, out, err = await client.end()
    assert code == 0, err
    assert json.loads(out)["covers"] == sequence + 1
    assert len(script.requests) == 1


async def test_an_ending_is_found_once_the_server_lets_it_be_read(nats_server: NatsServer) -> None:
    async with scripted(nats_server.url) as script, Line(nats_server.url).laid() as line:
        script.answer = lambda request, sequence: None
        client = await Client.start("pull", "--json", "--timeout", PATIENCE, "redis", url=line.url)
        await line.until_heard(b'"seq":')
        await script.until(lambda: bool(script.requests))
        sequence, request = script.requests[0]
        line.cut()
        await script.say(completed(request, sequence))
        async with _readable_only_later(nats_server.url):
            line.mend()
            await line.until_heard(b"NATS/1.0 503")
        code, out, err = await client.end()
    assert code == 0, err
    assert json.loads(out)["covers"] == sequence + 1


@asynccontextmanager
async def _readable_only_later(url: str) -> AsyncIterator[None]:
    """Nobody answers who asks for a stored message: as while a server that has just started opens its streams."""
    connection = await nats.connect(url)
    try:
        streams = connection.jetstream()
        config = (await streams.stream_info(EVENTS_STREAM)).config
        await streams.update_stream(config.evolve(allow_direct=False))
        try:
            yield
        finally:
            await streams.update_stream(config.evolve(allow_direct=True))
    finally:
        await connection.close()

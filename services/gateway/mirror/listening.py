"""Where the mirror is reached: a port or a unix socket, by so many connections at a time, each of which says something soon."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pullonce.errors import PullonceError
from services.gateway.mirror.counts import Counts
from services.gateway.rpc.sockets import listening

log = logging.getLogger(__name__)


class _NoJunk(logging.Filter):
    """What is no request, or breaks off, is the client's affair, and nothing to tell of with a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        exc = record.exc_info[1] if record.exc_info else None
        return not isinstance(exc, HttpProcessingError | ConnectionError)


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_NoJunk())

_MOST = 1000
"""Connections at a time: the other doors of this process need descriptors too."""
_SILENT = 30.0
"""Seconds that a new connection has to ask something."""
_IDLE = 75.0
"""Seconds for which a connection is kept that asks nothing more."""
_HEAD = 16 << 10
"""Bytes of a line of a request's head. Tokens of clouds have some thousands."""


class PortTaken(PullonceError):
    """Something else listens there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a listener is: a socket's path, or host and port.

    Attributes:
        port: 0: any that is free.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None

    def shown(self, port: int) -> str:
        """As a client names it."""
        if self.path is not None:
            return f"unix://{self.path}"
        return f"{'https' if self.tls else 'http'}://{f'[{self.host}]' if ':' in self.host else self.host}:{port}"


@asynccontextmanager
async def serving(application: web.Application, place: Place, counts: Counts) -> AsyncIterator[str]:
    """Answer at a place for as long as the block lasts; yields the address.

    Raises:
        PortTaken, SocketUnusable: it cannot be had.
    """
    runner = web.AppRunner(
        application, access_log=None, logger=_http_log, handler_cancellation=True, keepalive_timeout=_IDLE, max_line_size=_HEAD,
        max_field_size=_HEAD, shutdown_timeout=1.0,
    )  # fmt: skip
    await runner.setup()
    assert runner.server is not None
    door = _Door(runner.server, counts)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        loop = asyncio.get_running_loop()
        try:
            if place.path is not None:
                made = stack.enter_context(listening(place.path))
                server = await loop.create_unix_server(door.open, sock=made)
            else:
                server = await loop.create_server(door.open, place.host, place.port, ssl=place.tls, backlog=512)
        except OSError as exc:
            raise PortTaken(f"the mirror cannot listen at {place.shown(place.port)}: {exc.strerror or exc}") from exc
        sweeping = asyncio.create_task(door.sweep())
        try:
            yield place.shown(place.port if place.path else server.sockets[0].getsockname()[1])
        finally:
            sweeping.cancel()
            server.close()


class _TurnedAway(asyncio.Protocol):
    """A connection above the limit: it is closed before it says anything."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()  # uvloop's are no instances of that


class _Door:
    """Lets connections in, as many as there may be, and shows those out again that say nothing."""

    def __init__(self, server: web.Server, counts: Counts) -> None:
        self._server = server
        self._counts = counts
        self._told = False

    def open(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        if len(self._server.connections) < _MOST:
            self._told = False
            return self._server()
        self._counts.turned_away += 1
        if not self._told:
            self._told = True
            log.warning("more than %d connections at a time: the mirror turns away what comes", _MOST)
        return _TurnedAway()

    async def sweep(self) -> None:
        """Close connections that have not asked anything by the second look at them. For ever."""
        silent: set[int] = set()
        while True:
            await asyncio.sleep(_SILENT)
            there = {id(each): each for each in self._server.connections if not _asked(each)}
            for number in silent & there.keys():
                if (transport := there[number].transport) is not None:
                    transport.close()
            silent = set(there)


def _asked(connection: object) -> bool:
    """Whether a connection has asked something already."""
    return bool(getattr(connection, "_request_count", 1))

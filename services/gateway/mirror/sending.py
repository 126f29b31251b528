"""From a file to a client: by the kernel, where the connection is one that it can write to; else by way of us.

The event loop waits until the client can take more, and sends what the kernel has in memory. Where the disk has to be read,
threads send, a piece at a time, so that a slow disk holds up nobody else, and a slow client no thread.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from aiohttp import web

_PIECE = 4 << 20
"""Bytes that the kernel is asked to send at a time; it takes as many as fit into the connection."""
_READ = 256 << 10
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 300.0
"""Seconds after which a client that takes nothing is let go."""


class Outlet:
    """The way to the client of one response whose head was sent. `with Outlet(request, response) as outlet:`"""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._response = response
        self._transport = request.transport
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        found = self._transport.get_extra_info("socket") if self._transport is not None else None
        encrypted = self._transport is not None and self._transport.get_extra_info("sslcontext") is not None
        if found is not None and not encrypted:
            # A descriptor of our own: the loop waits for the other one by itself.
            self._socket = socket.socket(fileno=os.dup(found.fileno()))
        self._direct = self._socket is not None

    async def send(self, fd: int, start: int, length: int) -> None:
        """Send some bytes of a file.

        Raises:
            OSError, TimeoutError: the client is gone, or takes nothing any more.
        """
        position, end = start, start + length
        if self._direct:
            await self._drained()
            position = await self._by_kernel(fd, position, end)
        while position < end:
            piece = await _to_its_end(os.pread, fd, min(_READ, end - position), position)
            if not piece:
                raise ConnectionResetError("the file ends early")
            async with asyncio.timeout(PATIENCE):
                await self._response.write(piece)
            position += len(piece)

    def reset(self) -> None:
        """Break the connection off, so that nobody takes what came for all."""
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._transport is not None:
            self._transport.abort()

    async def _drained(self) -> None:
        """The head is with the kernel before anything overtakes it."""
        pause = 0.0
        async with asyncio.timeout(PATIENCE):
            while self._transport is not None and self._transport.get_write_buffer_size():
                if self._transport.is_closing():
                    raise ConnectionResetError("the client is gone")
                await asyncio.sleep(pause)
                pause = min(0.1, pause + 0.001)

    async def _by_kernel(self, fd: int, position: int, end: int) -> int:
        """How far the kernel could send; all of it, unless this is no file that it can send from."""
        assert self._socket is not None
        out = self._socket.fileno()
        while position < end:
            if self._transport is None or self._transport.is_closing():
                raise ConnectionResetError("the client is gone")
            try:
                length = min(_PIECE, end - position)
                if _in_memory(fd, position, length):
                    sent = os.sendfile(out, fd, position, length)
                    await asyncio.sleep(0)  # others are served between two pieces
                else:
                    sent = await _to_its_end(os.sendfile, out, fd, position, length)
            except BlockingIOError:
                await self._writable(out)
                continue
            except OSError as exc:
                if exc.errno in _NO_SENDFILE:
                    self._direct = False
                    break
                raise
            if not sent:
                raise ConnectionResetError("the file ends early")
            position += sent
        return position

    async def _writable(self, out: int) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(out, _settle, ready)
        try:
            async with asyncio.timeout(PATIENCE):
                await ready
        finally:
            self._loop.remove_writer(out)

    def __enter__(self) -> "Outlet":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._socket is not None:
            self._socket.close()


def _in_memory(fd: int, position: int, length: int) -> bool:
    """Whether the kernel has a piece of a file in memory, as far as its beginning and its end say."""
    try:
        for each in (position, position + length - 1):
            os.preadv(fd, [bytearray(1)], each, os.RWF_NOWAIT)
    except OSError:  # not now, or this file system does not tell
        return False
    return True


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _to_its_end(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do something in a thread. Who is cancelled waits for it: the descriptors that it uses may mean others a moment later."""
    task = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise

"""A line between two parts that is slow, counted, cut or dead, as a test wishes: plain TCP, forwarded byte by byte."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType

_PIECE = 16384


class Line:
    """Forwards connections to an address.

    `with Line("127.0.0.1:5000") as line:` stands at `line.host`. Safe to use from any thread.

    Args:
        target: `host:port` behind the line.
        rate: bytes a second that each connection may bring from behind; 0: as fast as it goes.

    Attributes:
        brought: bytes that came from behind and were handed on, over all connections.
    """

    def __init__(self, target: str, rate: float = 0.0) -> None:
        self._target = target
        self.rate = rate
        self.brought = 0
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._alive = asyncio.Event()
        self._alive.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def reference(self, behind: str) -> str:
        """The same image, by way of the line."""
        return behind.replace(self._target, self.host, 1)

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""
        self._loop.call_soon_threadsafe(self._abort)

    def die(self) -> None:
        """A partition: connections stay, new ones are accepted by the kernel, and nothing gets through in either direction."""
        self._loop.call_soon_threadsafe(self._alive.clear)

    def heal(self) -> None:
        """What was held back goes on."""
        self._loop.call_soon_threadsafe(self._alive.set)

    def __enter__(self) -> Line:
        self._thread.start()
        opening = asyncio.start_server(self._serve, sock=self._socket)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        self._abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        self._writers.add(writer)
        try:
            await self._alive.wait()
            behind, to_behind = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(to_behind)
        # Little may lie in the kernel, so that what was handed on is nearly what was received.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
        writer.transport.set_write_buffer_limits(high=_PIECE)
        both = (self._pour(reader, to_behind, counted=False), self._pour(behind, writer, counted=True))
        try:
            await asyncio.gather(*both)
        except asyncio.CancelledError:
            pass  # asyncio would complain of a cancelled handler
        finally:
            for each in (writer, to_behind):
                each.transport.abort()
                self._writers.discard(each)

    async def _pour(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool) -> None:
        try:
            while data := await source.read(_PIECE):
                await self._alive.wait()
                sink.write(data)
                await sink.drain()
                if counted:
                    self.brought += len(data)
                    if self.rate:
                        await asyncio.sleep(len(data) / self.rate)
            if sink.can_write_eof():
                sink.write_eof()
        except OSError:
            sink.transport.abort()

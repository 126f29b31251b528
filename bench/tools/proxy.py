"""A slow line in front of a registry: `python -m bench.tools.proxy HOST:PORT MB_A_SECOND`. Prints the port it listens on.

All connections share the rate, as they would share a line.
"""

from __future__ import annotations

import asyncio
import sys

_PIECE = 1 << 16


class Line:
    """So many bytes a second, whoever sends them."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0

    async def pass_on(self, size: int) -> None:
        """Return when these bytes have passed."""
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now) + size / self._rate
        await asyncio.sleep(self._free - now)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line | None) -> None:
    try:
        while data := await reader.read(_PIECE):
            if line is not None:
                await line.pass_on(len(data))
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main(target: str, rate: float) -> None:
    host, _, port = target.rpartition(":")
    line = Line(rate * 1e6)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, far_writer, None), copy(far_reader, writer, line))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))

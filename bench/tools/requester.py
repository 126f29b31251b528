"""One connected client that asks for an image many times at once: `python -m bench.tools.requester URL COUNT REFERENCE`.

Says `ready`, waits for a line, asks, and says `done` when all are answered.
"""

from __future__ import annotations

import asyncio
import sys

from pullonce.client import connect


async def main(url: str, count: int, reference: str) -> None:
    async with connect(url) as client:
        await client.last_sequence()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(client.pull(reference) for _ in range(count)))
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))

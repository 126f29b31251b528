"""One process of many waiters: `python -m bench.tools.waiters URL COUNT REFERENCE`.

Says `ready`, waits for a line, asks, and prints the times (seconds since the epoch) at which its waiters went on. Ends when its
input does: a Python that ends looks through all its memory, 30 ms of a processor that others may still be waiting for.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from pullonce.client import connect


async def main(url: str, count: int, reference: str) -> None:
    async with connect(url) as client:

        async def wait() -> float:
            await client.pull(reference)
            return time.time()

        await client.last_sequence()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(json.dumps(await asyncio.gather(*(wait() for _ in range(count)))), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))

"""What a flood of requests by one client costs somebody else, who pulls an image that is there.

    ./dev bench flood [--requests N] [--storage DIR --image NAME:TAG]

The flood asks for N images that no registry has, as fast as the bus takes it; each opens a flight of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import nats

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools.setting import arguments, registry_with, services
from pullonce.client import Client, connect
from pullonce.process import discovery

PULLS = 5


async def pulled(client: Client, reference: str) -> float:
    """Seconds that a pull takes."""
    start = time.perf_counter()
    await client.pull(reference, timeout=600)
    return time.perf_counter() - start


async def measure(url: str, host: str, image: str, requests: int) -> None:
    async with connect(url) as client:
        await client.pull(f"{host}/{image}")
        before = [await pulled(client, f"{host}/{image}") for _ in range(PULLS)]
        flood = await nats.connect(url)
        start = time.perf_counter()
        for number in range(requests):
            await flood.publish("pull.requested", json.dumps({"reference": f"{host}/flood/x{number}:latest"}).encode())
        await flood.flush()
        sent = time.perf_counter() - start
        during = [await pulled(client, f"{host}/{image}") for _ in range(PULLS)]
        await flood.close()
    print(
        f"{requests} requests in {sent:.2f} s; a present image took before "
        + shown(before)
        + ", and behind them "
        + shown(during)
    )


def shown(seconds: list[float]) -> str:
    return ", ".join(f"{each * 1e3:.0f}" for each in seconds) + " ms"


def main() -> None:
    parser = arguments(__doc__ or "", "small:latest")
    parser.add_argument("--requests", type=int, default=20_000)
    given = parser.parse_args()
    with registry_with(given.storage, given.image) as registry, services(registry.host) as ours:
        served = discovery.served(str(ours.home))
        assert served is not None
        asyncio.run(measure(served.url, registry.host, given.image, given.requests))


if __name__ == "__main__":
    main()

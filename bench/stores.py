"""What a server pays for the stores that wait for work: connecting them, stopping it, starting it again.

./dev bench stores [--stores N] [--keep FILE]

Each store has the consumers of a fetcher and an unpacker, as the product makes them; a hundred stores share a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from msgspec.structs import replace

from bench.storm import ask, cpu, resident
from bench.tools.results import Row, keep
from bench.tools.usage import come_first
from pullonce.bus.nats.bus import NatsBus, connect
from pullonce.bus.ports import Delivery
from pullonce.config import BusSettings
from schemas.orders import UnpackLayer
from schemas.subjects import ORDER_GROUPS
from tests.support.buses import fetch
from tests.support.nats_server import NatsServer

EACH = 100
"""Stores on a connection."""
LIMIT = 180.0


class Stores:
    """Workers of many stores that wait for orders, and count those they get."""

    def __init__(self, count: int) -> None:
        self.names = [f"s{number:05d}" for number in range(count)]
        self.served: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def attach(self, stack: AsyncExitStack, url: str) -> NatsBus:
        for first in range(0, len(self.names), EACH):
            bus = await stack.enter_async_context(connect(BusSettings(url=url, name="stores"), patience=30))
            for name in self.names[first : first + EACH]:
                for kinds in ORDER_GROUPS.values():
                    for kind in kinds:
                        self._tasks.append(asyncio.ensure_future(bus.orders.receive(kind, name, self._take, limit=4)))
        return bus

    async def _take(self, delivery: Delivery) -> None:
        self.served.add(f"{type(delivery.order).__name__} {delivery.order.store}")
        await delivery.ack()

    async def all_serve(self, bus: NatsBus, revision: int) -> None:
        """Send each store an order of either worker, and wait until all were carried out."""
        self.served.clear()
        blob = fetch(1)
        for name in self.names:
            await bus.orders.send(replace(fetch(1, revision=revision), store=name))
            await bus.orders.send(
                UnpackLayer(store=name, revision=revision, chain_id=blob.blob.digest, diff_id=blob.blob.digest, blob=blob.blob)
            )
        until = time.monotonic() + LIMIT
        while len(self.served) < 2 * len(self.names):
            if time.monotonic() > until:
                raise TimeoutError(f"{len(self.served)} of {2 * len(self.names)} orders were carried out")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def measure(count: int, server: NatsServer) -> Row:
    assert server._process is not None
    stores = Stores(count)
    async with AsyncExitStack() as stack:
        start = time.perf_counter()
        bus = await stores.attach(stack, server.url)
        await stores.all_serve(bus, 1)
        connected, used = time.perf_counter() - start, cpu(server._process.pid)
        await asyncio.sleep(10.0)
        idle = (cpu(server._process.pid) - used) / 10.0
        held = resident(server._process.pid)
        found = await ask(bus.orders._link.client, "STREAM.INFO.ORDERS", {})
        consumers = found["state"]["consumer_count"]
        start = time.perf_counter()
        await asyncio.to_thread(server.stop)
        stopped = time.perf_counter() - start
        start = time.perf_counter()
        await asyncio.to_thread(server.start)
        restarted = time.perf_counter() - start
        await stores.all_serve(bus, 2)
        serving = time.perf_counter() - start
        await stores.stop()
    return {
        "what": "stores", "stores": count, "consumers": consumers, "connected": round(connected, 2),
        "cpu_server": round(used, 2), "idle_cpu": round(idle, 4), "rss_server": round(held, 1), "stop": round(stopped, 2),
        "restart": round(restarted, 2), "serving_again": round(serving, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, nargs="+", default=[250, 2000])
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    come_first()
    import uvloop

    rows = []
    for count in given.stores:
        with tempfile.TemporaryDirectory() as home:
            server = NatsServer(Path(home)).start()
            try:
                rows.append(uvloop.run(measure(count, server)))
            finally:
                server.kill()
        print(json.dumps(rows[-1]), flush=True)
    if given.keep:
        keep(given.keep, rows)


if __name__ == "__main__":
    main()

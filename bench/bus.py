"""What the bus costs on this machine: `python bench/bus.py [--sync 10s]`; about half a minute, a server of its own.

Prints a table: replay, appends, claims, the release of waiters, and one hop through the work queue. With `--compare-sync`
it measures only the writes, for several sync intervals of the server, as docs/adr/0001-sync-interval.md quotes them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pullonce.bus.nats.bus import connect
from pullonce.bus.ports import Bus, Delivery, Recorded
from pullonce.config import BusSettings
from schemas.events import BlobFetched, PullFailed
from schemas.oci import Digest
from tests.support.buses import fetch
from tests.support.nats_server import NatsServer

EVENTS = 100_000
WRITES = 20_000
WAITERS = 1_000
HOPS = 500


def fetched(number: int, revision: int = 1) -> BlobFetched:
    return BlobFetched(digest=Digest(f"sha256:{number:064x}"), size=number, revision=revision)


@asynccontextmanager
async def server(sync: str) -> AsyncIterator[NatsServer]:
    lines = f"sync_interval: {sync}" if sync else ""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as home:
        running = await asyncio.to_thread(NatsServer(Path(home), jetstream=lines).start)
        try:
            yield running
        finally:
            running.kill()


def open_bus(at: NatsServer) -> AbstractAsyncContextManager[Bus]:
    return connect(BusSettings(url=at.url, name="bench"), patience=10)


def say(what: str, value: str) -> None:
    print(f"{what:<58} {value:>20}", flush=True)


async def rate(count: int, step: Callable[[int], Awaitable[object]], parallel: int) -> float:
    """Steps a second, `parallel` of them in flight."""
    numbers = iter(range(count))

    async def run() -> None:
        for number in numbers:
            await step(number)

    began = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(parallel)))
    return count / (time.perf_counter() - began)


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 2] * 1e3:.2f} / {ordered[int(len(ordered) * 0.99)] * 1e3:.2f} ms"


async def replay(bus: Bus) -> float:
    caught_up: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def apply(recorded: Recorded) -> None:
        if recorded.pending == 0 and not caught_up.done():
            caught_up.set_result(recorded.sequence)

    began = time.perf_counter()
    following = asyncio.ensure_future(bus.log.follow(apply))
    count = await caught_up
    following.cancel()
    return count / (time.perf_counter() - began)


async def release(one: Bus, other: Bus) -> list[float]:
    """One ending wakes 1,000 waiters that share a subscription: seconds until each of them runs."""
    waiting: list[asyncio.Future[float]] = [asyncio.get_running_loop().create_future() for _ in range(WAITERS)]

    def wake(subject: str, body: bytes) -> None:
        for waiter in waiting:
            waiter.set_result(0.0)

    async def wait(waiter: asyncio.Future[float]) -> float:
        await waiter
        return time.perf_counter()

    waiters = [asyncio.ensure_future(wait(waiter)) for waiter in waiting]
    subscription = await one.signals.subscribe("pull.failed.>", wake)
    ending = PullFailed(reference="a.b/c:d", flight="0123456789abcdef", opened=1, covers=2, code="x", message="x")
    began = time.perf_counter()
    await other.log.append(ending)
    ends = await asyncio.gather(*waiters)
    await subscription.stop()
    return [end - began for end in ends]


async def hop(one: Bus, other: Bus) -> list[float]:
    """Order sent on one connection → handler running on another, one at a time."""
    taken: asyncio.Queue[float] = asyncio.Queue()

    async def take(delivery: Delivery) -> None:
        taken.put_nowait(time.perf_counter())
        await delivery.ack()

    receiving = asyncio.ensure_future(one.orders.receive("fetch.blob", "default", take, limit=16))
    latencies = []
    for number in range(HOPS):
        began = time.perf_counter()
        await other.orders.send(fetch(number))
        latencies.append(await taken.get() - began)
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    return latencies


async def measure(sync: str) -> None:
    async with server(sync) as at, open_bus(at) as one, open_bus(at) as other:
        began = time.perf_counter()
        await one.log.append_all([fetched(number) for number in range(EVENTS)])
        say("append_all, events/s", f"{EVENTS / (time.perf_counter() - began):,.0f}")
        say("append one at a time, events/s", f"{await rate(2000, lambda n: one.log.append(fetched(n, 2)), 1):,.0f}")
        say(f"replay of {EVENTS:,}, decode and callback, events/s", f"{await replay(one):,.0f}")
        put = lambda n: one.claims.put(f"blob.default.{n}", b"x", expected=0, ttl=600)  # noqa: E731
        say("claims, 100 in flight, claims/s", f"{await rate(WRITES, put, 100):,.0f}")
        say(f"release of {WAITERS:,} waiters from the append, p50 / p99", spread(await release(one, other)))
        say("order sent → handler runs, p50 / p99", spread(await hop(one, other)))


async def compare() -> None:
    print(f"{'sync interval':<16}{'append 1 at a time/s':>22}{'append_all/s':>16}{'claims, 100 in flight/s':>28}")
    for sync in ("always", "1s", "10s", ""):
        async with server(sync) as at, open_bus(at) as bus:
            count = 1500 if sync == "always" else WRITES
            single = await rate(count // 10, lambda n: bus.log.append(fetched(n, 2)), 1)
            began = time.perf_counter()
            await bus.log.append_all([fetched(number) for number in range(count)])
            batch = count / (time.perf_counter() - began)
            put = lambda n: bus.claims.put(f"blob.default.{n}", b"x", expected=0)  # noqa: E731
            claims = await rate(count, put, 100)
        print(f"{sync or 'default (2m)':<16}{single:>22,.0f}{batch:>16,.0f}{claims:>28,.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sync", default="10s", help="the server's sync_interval")
    parser.add_argument("--compare-sync", action="store_true")
    parser.add_argument("--uvloop", action="store_true", help="use the event loop that the services use")
    chosen = parser.parse_args()
    work = compare() if chosen.compare_sync else measure(chosen.sync)
    if chosen.uvloop:
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)

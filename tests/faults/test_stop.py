"""A service that is told to stop (SIGTERM) hands over at once: nobody waits for a lease or for an acknowledgement to run out.

Leases are made so long here that a pull which had to wait for one would not end within the test.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pullonce.bus.memory.bus import MemoryBus
from pullonce.bus.memory.orders import MemoryOrders
from pullonce.client import connect
from pullonce.pulling.identity import identify_request
from schemas import routing, subjects
from schemas.events import PullRequested, PullResolved, ResolvedLayer, Source
from schemas.oci import ChainID, Descriptor, DiffID
from schemas.orders import Order
from services.coordinator import claim
from services.coordinator.handlers import Coordinator
from tests.support.buses import digest, eventually, soon
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.chaos_line import Line
from tests.support.faulty import FaultyRegistry, held_until
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 40
FOR_EVER = {"PULLONCE_ACK_WAIT": "600", "PULLONCE_CLAIM_LEASE": "600"}


@pytest.mark.parametrize("service", ["coordinator", "fetcher", "unpacker"])
async def test_work_goes_on_at_once(registry: RegistryServer, bus_server: NatsServer, tmp_path: Path, service: str) -> None:
    tars = stack(random.Random(service), 3, size=1_000_000)
    behind = registry.push(f"stop/{service}", "latest", picture(tars))
    with (
        Line(registry.host, rate=1_000_000) as line,
        Crew(tmp_path / "home", bus_server.url, environ=FOR_EVER, coordinator=2, fetcher=2, unpacker=2) as crew,
    ):
        async with connect(crew.url, patience=LIMIT) as client:
            start = await client.last_sequence() + 1
            pulls = [asyncio.ensure_future(client.pull(line.reference(behind), timeout=LIMIT)) for _ in range(5)]
            await eventually(lambda: begun(crew))
            for member in crew.named(service):
                member.signal(signal.SIGTERM)
            await asyncio.gather(*pulls)
            verdict = judge(await read_on(client, start))
        assert (verdict.unanswered, verdict.twice, verdict.failed, verdict.extra) == ([], [], [], 0)
        assert damage(crew.store, trees(tars)) == []
        assert all(member.deaths == [0] for member in crew.named(service)), "each ended by itself, in order"


async def test_all_end_cleanly_when_the_bus_dies_beside_them(registry: RegistryServer, tmp_path: Path) -> None:
    """In the middle of work: what they have to say reaches nobody any more."""
    reference = registry.push("stop/bus", "latest", picture(stack(random.Random(7), 3, size=1_000_000)))
    server = NatsServer(tmp_path / "nats").start()
    try:
        with Line(registry.host, rate=500_000) as line:
            with Crew(tmp_path / "home", server.url, environ=FOR_EVER, coordinator=2, fetcher=2, unpacker=2) as crew:
                async with connect(crew.url, patience=LIMIT) as client:
                    pulling = asyncio.ensure_future(client.pull(line.reference(reference), timeout=LIMIT))
                    await eventually(lambda: begun(crew))
                    for service in ("coordinator", "fetcher", "unpacker"):
                        for member in crew.named(service):
                            member.signal(signal.SIGTERM)
                    server.kill()
                    await eventually(lambda: holds(all(each.deaths for each in crew.members)))
                    pulling.cancel()
            assert {each.name: each.deaths for each in crew.members if each.deaths != [0]} == {}
    finally:
        server.kill()


@pytest.mark.parametrize("moment", ["resolve", "layers"])
async def test_a_coordinator_gives_the_orders_of_what_it_has_claimed(
    bus_server: NatsServer, tmp_path: Path, moment: str
) -> None:
    """It is told to stop right behind a claim, when the orders of eight layers are to be given, or that of the resolution."""
    tars = stack(random.Random(moment), 8, size=20_000)
    known = asyncio.Event()
    async with FaultyRegistry(picture(tars)) as registry:
        registry.plan("HEAD", held_until(known))
        with Crew(tmp_path / "home", bus_server.url, environ=FOR_EVER, coordinator=2, fetcher=1, unpacker=1) as crew:
            async with connect(crew.url, patience=LIMIT) as client:
                start = await client.last_sequence() + 1
                if moment == "resolve":
                    crew.arm("claim.held", "stop")
                pulling = asyncio.ensure_future(client.pull(registry.reference, timeout=LIMIT))
                if moment == "layers":
                    await eventually(lambda: holds(bool(registry.seen)))
                    crew.arm("claim.held", "stop")
                known.set()
                await eventually(lambda: holds(bool(crew.stopped())))
                (stopped,) = crew.stopped()
                stopped.signal(signal.SIGTERM)
                stopped.signal(signal.SIGCONT)
                await pulling
                verdict = judge(await read_on(client, start))
            assert (verdict.unanswered, verdict.twice, verdict.failed, verdict.extra) == ([], [], [], 0)
            await eventually(lambda: holds(stopped.deaths == [0]))


async def holds(true: bool) -> bool:
    return true


async def begun(crew: Crew) -> bool:
    """Some bytes of all three layers are there."""
    growing = list((crew.store / "ingest").glob("*"))
    return len(growing) == 3 and all(each.stat().st_size for each in growing)


# -- a coordinator between two steps ----------------------------------------------------------------------------------------

REQUEST = PullRequested(reference="docker.io/library/redis:latest")


class Slow:
    """The orders of a bus, none of which is accepted before the test says so."""

    def __init__(self, orders: MemoryOrders) -> None:
        self._orders = orders
        self.asked: asyncio.Queue[Order] = asyncio.Queue()
        self.accept = asyncio.Event()
        self._sending: list[asyncio.Future[None]] = []

    async def send(self, order: Order) -> None:
        self.asked.put_nowait(order)
        await self.accept.wait()
        await self._orders.send(order)

    def send_soon(self, order: Order, *, done: Callable[[int | None], None]) -> None:
        self._sending.append(asyncio.ensure_future(self._send_late(order, done)))

    async def _send_late(self, order: Order, done: Callable[[int | None], None]) -> None:
        await self.send(order)
        done(1)

    def has(self, revision: int) -> bool:
        """The order that a claim justified is in the queue."""
        return any(subject.endswith(f".{revision}") for subject in self._orders.pending)


class SlowBus(MemoryBus):
    """A memory bus with slow orders."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = self.orders = Slow(self.orders)  # type: ignore[assignment]

    async def claim(self, key: str) -> claim.Claim | None:
        entry = await self.claims.get(key)
        return None if entry is None else claim.decode(entry.value)


async def test_a_coordinator_leaves_no_claim_that_others_would_have_to_wait_for() -> None:
    bus = SlowBus()
    coordinator = asyncio.ensure_future(Coordinator(bus, me="one").run())
    await bus.log.append(REQUEST)
    key = routing.claim_key(await soon(bus.slow.asked.get()))
    assert isinstance(await bus.claim(key), claim.Held)
    coordinator.cancel()
    await asyncio.sleep(0)
    assert not coordinator.done(), "it takes its last steps"
    bus.slow.accept.set()
    with pytest.raises(asyncio.CancelledError):
        await soon(coordinator)
    assert await ordered(bus, [key])


async def test_all_orders_that_are_still_to_be_given_are_given() -> None:
    """Those of three layers, each to be fetched and unpacked, become wanted in one step; none is accepted before the end."""
    bus = SlowBus()
    coordinator = asyncio.ensure_future(Coordinator(bus, me="one").run())
    await bus.log.append(REQUEST)
    resolve = await soon(bus.slow.asked.get())
    bus.slow.accept.set()
    await eventually(lambda: ordered(bus, [routing.claim_key(resolve)]))
    bus.slow.accept.clear()
    blobs = [Descriptor(media_type="layer", digest=digest(number), size=number) for number in range(3)]
    resolved = PullResolved(
        reference=REQUEST.reference, flight=identify_request(REQUEST).flight, opened=1, revision=resolve.revision,
        platform="linux/amd64", source=Source("docker.io", "library/redis"), digest=digest(9), manifest=blobs[0],
        config=blobs[0],
        layers=tuple(ResolvedLayer(blob=each, diff_id=DiffID(each.digest), chain_id=ChainID(each.digest)) for each in blobs),
    )  # fmt: skip
    await bus.log.append(resolved)
    keys = [routing.claim_key(await soon(bus.slow.asked.get())) for _ in range(6)]
    assert [type(await bus.claim(key)) for key in keys] == [claim.Held] * 6
    coordinator.cancel()
    await asyncio.sleep(0)
    bus.slow.accept.set()
    with pytest.raises(asyncio.CancelledError):
        await soon(coordinator)
    assert await ordered(bus, keys)


async def ordered(bus: SlowBus, keys: list[str]) -> bool:
    entries = [await bus.claims.get(key) for key in keys]
    return all(entry is not None and bus.slow.has(entry.revision) for entry in entries)


async def test_a_coordinator_that_cannot_finish_does_not_try_for_ever() -> None:
    bus = SlowBus()
    coordinator = asyncio.ensure_future(Coordinator(bus, me="one").run())
    await bus.log.append(REQUEST)
    await soon(bus.slow.asked.get())
    coordinator.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(coordinator)


async def test_a_coordinator_that_waits_for_another_one_stops_at_once() -> None:
    bus = SlowBus()
    key = subjects.resolve_key("default", identify_request(REQUEST).flight, 1)
    await bus.claims.put(key, claim.encode(claim.Held(by="another", nonce="1")), expected=0)
    coordinator = Coordinator(bus, me="one")
    running = asyncio.ensure_future(coordinator.run())
    await bus.log.append(REQUEST)

    async def waits() -> bool:
        return bool(coordinator._asleep)

    await eventually(waits)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, claim.HOLD / 2)

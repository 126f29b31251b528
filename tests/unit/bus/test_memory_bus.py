"""What only the memory twin does: time that a test owns."""

import asyncio

from pullonce.bus.memory.bus import MemoryBus
from pullonce.bus.memory.signals import subjects_match
from pullonce.bus.ports import Delivery
from tests.support.buses import fetch, running
from tests.support.clock import ManualClock


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_claims_expire_when_the_clock_is_advanced() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock)
    held = await bus.claims.put("a", b"x", expected=0, ttl=10)
    clock.advance(9.9)
    assert await bus.claims.get("a") is not None
    held = await bus.claims.put("a", b"y", expected=held, ttl=10)
    clock.advance(9.9)
    assert await bus.claims.get("a") is not None
    clock.advance(0.2)
    assert await bus.claims.get("a") is None
    assert await bus.claims.put("a", b"z", expected=0) > held
    assert clock.next_due is None


async def test_orders_come_back_at_their_deadline_and_after_their_delay() -> None:
    clock = ManualClock()
    bus = MemoryBus(clock, ack_wait=10)
    taken: list[Delivery] = []

    async def take(delivery: Delivery) -> None:
        taken.append(delivery)
        if delivery.attempt == 3:
            await delivery.ack()

    async with running(bus.orders.receive("fetch.blob", "default", take, limit=5)):
        await bus.orders.send(fetch(1))
        await turns()
        clock.advance(9)
        await taken[0].in_progress()
        clock.advance(9)
        await turns()
        assert [each.attempt for each in taken] == [1]
        clock.advance(2)
        await turns()
        assert [each.attempt for each in taken] == [1, 2]
        await taken[0].nak(), await taken[1].nak(delay=5)
        clock.advance(4.9)
        await turns()
        assert [each.attempt for each in taken] == [1, 2]
        clock.advance(0.1)
        await turns()
        assert [each.attempt for each in taken] == [1, 2, 3]
    assert bus.orders.pending == []
    assert clock.next_due is None


async def test_a_pretended_reconnection_is_told() -> None:
    bus, told = MemoryBus(), []
    bus.signals.on_reconnect(lambda: told.append(1))
    bus.signals.reconnect()
    assert told == [1]


def test_patterns_match_as_on_the_server() -> None:
    cases = [
        ("a.b", "a.b", True), ("a.b", "a.c", False), ("a.*", "a.b", True), ("a.*", "a", False), ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True), ("a.>", "a", False), (">", "a", True), ("*.b", "a.b", True), ("a.*.c", "a.b.d", False),
    ]  # fmt: skip
    assert [subjects_match(pattern, subject) for pattern, subject, _ in cases] == [right for _, _, right in cases]

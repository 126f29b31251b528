"""How much is asked for at a time, and who is asked at all: slots, shares, silence."""

from __future__ import annotations

import asyncio

from services.fetcher.remote.silence import REST, Silence
from services.fetcher.slots import Share, Shares, Slots


async def test_slots_of_one_registry_are_no_others() -> None:
    slots, order = Slots(1), list[str]()
    async with slots.of("a"):
        waiting = asyncio.ensure_future(_note(slots, "a", order))
        await _note(slots, "b", order)
        assert order == ["b"] and not waiting.done()
    await waiting
    assert order == ["b", "a"] and not slots._doors, "nothing is kept of a registry that nobody asks"


async def _note(slots: Slots, registry: str, order: list[str]) -> None:
    async with slots.of(registry):
        order.append(registry)


async def test_a_slot_that_was_waited_for_in_vain_is_not_lost() -> None:
    slots = Slots(1)
    async with slots.of("a"):
        waiting = asyncio.ensure_future(_note(slots, "a", []))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await _note(slots, "a", [])
    assert not slots._doors


async def test_a_transfer_that_brings_little_lends_its_share_until_it_comes_on() -> None:
    shares = Shares(1, rate=100.0, interval=1000.0)
    async with shares.one() as slow:
        await slow.took(99_999)
        slow.look()
        async with shares.one() as other:
            assert not slow.held and other.held
            await slow.took(100_000)
            slow.look()
            again = asyncio.ensure_future(slow.took(1))
            await asyncio.sleep(0)
            assert not again.done(), "there is one share, and it is not free"
        await again
        assert slow.held
    async with shares.one():
        pass


async def test_a_transfer_that_comes_on_keeps_its_share() -> None:
    share = Share(asyncio.Semaphore(0), slow=10.0)
    await share.took(10)
    share.look()
    assert share.held


def test_a_silent_server_rests_and_is_then_asked_by_one() -> None:
    silence = Silence(patience=30.0)
    assert not silence.rests("a", 0.0)
    silence.missed("a", 0.0)
    assert silence.rests("a", REST - 0.1) and not silence.rests("b", 1.0)
    assert not silence.rests("a", REST), "one finds out"
    assert silence.rests("a", REST + 29.0), "while it does, nobody else asks"
    silence.missed("a", REST + 30.0)
    assert silence.rests("a", REST + 31.0)
    silence.heard("a")
    assert not silence.rests("a", REST + 31.0)


def test_servers_without_end_are_not_remembered_without_end() -> None:
    silence = Silence(1.0)
    for number in range(5000):
        silence.missed(f"s{number}", 0.0)
    assert len(silence._silent) == 1000 and silence.rests("s4999", 0.0)

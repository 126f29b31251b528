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
    silence.missed("a", -30.0, 0.0)
    assert silence.rests("a", REST - 0.1) and not silence.rests("b", 1.0)
    assert not silence.rests("a", REST), "one finds out"
    assert silence.rests("a", REST + 29.0), "while it does, nobody else asks"
    silence.missed("a", REST, REST + 30.0)
    assert silence.rests("a", REST + 31.0)
    silence.heard("a", REST + 31.0)
    assert not silence.rests("a", REST + 31.0)


def test_servers_without_end_are_not_remembered_without_end() -> None:
    silence = Silence(1.0)
    for number in range(5000):
        silence.missed(f"s{number}", -1.0, 0.0)
    assert len(silence._silent) == 1000 and silence.rests("s4999", 0.0)


def test_a_server_that_answered_others_meanwhile_is_not_silent() -> None:
    """One request of many was lost, or its path is slow: those that wait behind it need not suffer."""
    silence = Silence(patience=30.0)
    silence.heard("a", 10.0)
    silence.missed("a", 5.0, 35.0)
    assert not silence.rests("a", 35.0), "it spoke at 10, after that was sent"
    silence.missed("b", 5.0, 35.0)
    assert silence.rests("b", 35.0), "another one did not"
    silence.missed("a", 11.0, 41.0)
    assert silence.rests("a", 41.0), "it has said nothing since"


def test_who_leaves_before_a_server_is_found_out_leaves_that_to_the_next() -> None:
    silence = Silence(patience=30.0)
    silence.missed("a", 0.0, 30.0)
    silence.let_go("a", 0.0)
    assert silence.rests("a", 31.0), "it was not the one that finds out"
    assert not silence.rests("a", 40.0) and silence.rests("a", 41.0)
    silence.let_go("a", 39.0)
    assert silence.rests("a", 41.0)
    silence.let_go("a", 40.0)
    assert not silence.rests("a", 42.0), "the next one does"
    assert silence.rests("a", 43.0)
    silence.let_go("never asked", 42.0)


def test_servers_that_spoke_are_not_remembered_without_end() -> None:
    silence = Silence(1.0)
    for number in range(5000):
        silence.heard(f"s{number}", 0.0)
    assert len(silence._heard) == 1000

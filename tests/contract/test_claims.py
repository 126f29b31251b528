"""The contract of `bus.Claims`."""

import asyncio

import pytest

from pullonce.bus.ports import Bus, ClaimEntry
from pullonce.errors import WrongRevision
from tests.support.buses import Place, eventually, fetch, fetched, soon

KEY = "blob.default.sha256-00"


async def absent(bus: Bus, key: str) -> bool:
    return await bus.claims.get(key) is None


async def test_a_key_is_made_once_and_replaced_by_its_revision(place: Place) -> None:
    async with place.connect() as bus:
        assert await bus.claims.get(KEY) is None
        first = await bus.claims.put(KEY, b"one", expected=0)
        assert first > 0
        with pytest.raises(WrongRevision):
            await bus.claims.put(KEY, b"two", expected=0)
        assert await bus.claims.get(KEY) == ClaimEntry(b"one", first)
        second = await bus.claims.put(KEY, b"two", expected=first)
        assert second > first
        with pytest.raises(WrongRevision):
            await bus.claims.put(KEY, b"three", expected=first)
        assert await bus.claims.get(KEY) == ClaimEntry(b"two", second)


async def test_an_absent_key_has_no_revision_to_expect(place: Place) -> None:
    async with place.connect() as bus:
        with pytest.raises(WrongRevision):
            await bus.claims.put(KEY, b"one", expected=7)
        assert await bus.claims.get(KEY) is None


async def test_of_many_claimants_one_wins(place: Place) -> None:
    async with place.connect() as one, place.connect() as other:
        buses = [one, other] * 50
        outcomes = await asyncio.gather(
            *(bus.claims.put(KEY, b"%d" % n, expected=0) for n, bus in enumerate(buses)), return_exceptions=True
        )
        won = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
        assert len(won) == 1
        assert all(isinstance(outcome, WrongRevision) for n, outcome in enumerate(outcomes) if n != won[0])
        assert await other.claims.get(KEY) == ClaimEntry(b"%d" % won[0], outcomes[won[0]])


async def test_a_claim_with_a_ttl_vanishes_and_can_be_made_again(place: Place) -> None:
    async with place.connect() as bus:
        first = await bus.claims.put(KEY, b"held", expected=0, ttl=1)
        await eventually(lambda: absent(bus, KEY))
        second = await bus.claims.put(KEY, b"mine", expected=0)
        assert second > first
        assert await bus.claims.get(KEY) == ClaimEntry(b"mine", second)


async def test_a_rewrite_without_ttl_stays(place: Place) -> None:
    async with place.connect() as bus:
        held = await bus.claims.put(KEY, b"held", expected=0, ttl=1)
        ordered = await bus.claims.put(KEY, b"ordered", expected=held)
        await bus.claims.put("later", b"outlives what the first one's TTL was", expected=0, ttl=1.5)
        await eventually(lambda: absent(bus, "later"))
        assert await bus.claims.get(KEY) == ClaimEntry(b"ordered", ordered)


async def test_a_ttl_below_a_second_is_refused(place: Place) -> None:
    async with place.connect() as bus:
        with pytest.raises(ValueError):
            await bus.claims.put(KEY, b"x", expected=0, ttl=0.5)


async def test_what_is_written_without_waiting_is_written_or_not_known_to_be(place: Place) -> None:
    async with place.connect() as bus:
        told: asyncio.Queue[int | None] = asyncio.Queue()
        bus.claims.put_soon("blob.default.x", b"one", expected=0, ttl=60.0, done=told.put_nowait)
        revision = await soon(told.get())
        assert revision and await bus.claims.get("blob.default.x") == ClaimEntry(b"one", revision)
        bus.claims.put_soon("blob.default.x", b"two", expected=0, done=told.put_nowait)
        assert await soon(told.get()) is None
        bus.claims.tell("blob.default.x", b"three", expected=0)
        bus.claims.tell("blob.default.x", b"four", expected=revision)

        async def last() -> bool:
            entry = await bus.claims.get("blob.default.x")
            return entry is not None and entry.value == b"four"

        await eventually(last)
        bus.orders.send_soon(fetch(1), done=told.put_nowait)
        assert await soon(told.get()) == 1
        bus.orders.send_soon(fetch(1), done=told.put_nowait)
        assert await soon(told.get()) == 1, "being there already is as good"
        bus.log.append_soon(fetched(1), done=told.put_nowait)
        assert await soon(told.get()) == 1

"""A coordinator starts at the low-water mark, whatever lies before it, and keeps the log within its limits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pullonce.bus.nats.bus import connect
from pullonce.bus.ports import Bus, Extent
from pullonce.config import BusSettings
from pullonce.pulling.identity import identify
from schemas.events import PullFailed, PullRequested
from schemas.subjects import MARK_KEY, pull_subject
from services.coordinator import keeper
from services.coordinator.handlers import Coordinator
from services.coordinator.in_flight import GONE
from services.coordinator.mark import Mark, decode, encode
from tests.support.buses import LIMIT, eventually, soon
from tests.support.long_log import long_log


@asynccontextmanager
async def coordinating(bus: Bus, name: str = "c", **given: Any) -> AsyncIterator[Coordinator]:
    """A coordinator that has caught up."""
    ready = asyncio.Event()

    async def caught_up() -> None:
        ready.set()

    coordinator = Coordinator(bus, name, **given)
    running = asyncio.ensure_future(coordinator.run(caught_up))
    waiting = asyncio.ensure_future(ready.wait())
    try:
        await asyncio.wait((running, waiting), timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        assert ready.is_set(), "did not catch up"
        yield coordinator
    finally:
        waiting.cancel()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def starts(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Where each coordinator began to read."""
    return [record.start for record in caplog.records if record.message == "reading the log"]  # type: ignore[attr-defined]


async def write_mark(bus: Bus, coordinator: Coordinator) -> Mark:
    """Have it write its mark, which takes one look to take a candidate and one to see it become the mark."""
    for _ in range(2):
        await coordinator.keeper.write_mark()
    entry = await bus.claims.get(MARK_KEY)
    assert entry is not None, "no mark was written"
    mark = decode(entry.value)
    assert mark is not None
    return mark


async def test_the_next_one_starts_at_the_mark(nats_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with connect(BusSettings(url=nats_url, name="test"), patience=LIMIT) as bus:
        await bus.log.append_all([event for _, _, event in long_log(4000)])
        last = await bus.log.last_sequence()
        async with coordinating(bus) as first:
            mark = await write_mark(bus, first)
            assert mark.position == last and not first.board.flights
        await bus.log.append(PullRequested(reference="registry.example/app:1"))
        async with coordinating(bus) as second:
            assert [flight.reference for flight in second.board.flights.values()] == ["registry.example/app:1"]
            assert second.board.position == last + 1
        assert starts(caplog) == [1, last + 1]
        # The log may lose all before the mark, and a coordinator of before reads what is left from its beginning.
        await bus.log.cut(last + 1)
        await bus.claims.put(MARK_KEY, b"no mark", expected=(await bus.claims.get(MARK_KEY)).revision)  # type: ignore[union-attr]
        async with coordinating(bus) as third:
            assert third.board.position == last + 1 and len(third.board.flights) == 1
        assert starts(caplog) == [1, last + 1, last + 1]


@pytest.mark.parametrize("wrong", [{"log": "another"}, {"seen": 10**9}, {"position": 50, "seen": 40}])
async def test_a_mark_of_another_log_is_passed_over(
    nats_url: str, caplog: pytest.LogCaptureFixture, wrong: dict[str, object]
) -> None:
    caplog.set_level(logging.INFO)
    async with connect(BusSettings(url=nats_url, name="test"), patience=LIMIT) as bus:
        await bus.log.append_all([event for _, _, event in long_log(100)])
        extent = await bus.log.extent()
        good = {"position": 50, "seen": 60, "log": extent.made}
        await bus.claims.put(MARK_KEY, encode(Mark(**{**good, **wrong})), expected=0)  # type: ignore[arg-type]
        async with coordinating(bus) as coordinator:
            assert coordinator.board.position == extent.last
        assert starts(caplog) == [1]


async def test_the_log_is_cut_to_its_limit_and_never_behind_the_mark(nats_url: str) -> None:
    async with connect(BusSettings(url=nats_url, name="test"), patience=LIMIT) as bus:
        await bus.log.append_all([event for _, _, event in long_log(3000)])
        whole = await bus.log.extent()
        async with coordinating(bus, log_bytes=whole.bytes // 2) as coordinator:
            await coordinator.keeper.tend()
            assert (await bus.log.extent()).first == 1, "nothing is cut without a mark"
            await write_mark(bus, coordinator)
            await coordinator.keeper.tend()
            left = await bus.log.extent()
            assert whole.bytes // 3 < left.bytes <= whole.bytes // 2
            assert left.last == whole.last


async def test_whoever_waits_for_a_flight_whose_request_was_cut_off_is_told(nats_url: str) -> None:
    async with connect(BusSettings(url=nats_url, name="test"), patience=LIMIT) as bus:
        asked = PullRequested(reference="registry.example/app:1")
        flight = identify("registry.example/app:1").flight
        sequence = await bus.log.append(asked)
        async with coordinating(bus) as coordinator:
            await bus.log.cut(sequence + 1)
            await coordinator.keeper.tend()
            told = pull_subject("failed", "default", "registry.example/app:1", flight)

            async def ended() -> bool:
                return not coordinator.board.flights

            await eventually(ended)
            ending = await soon(bus.log.last(told))
            assert ending is not None and isinstance(ending.event, PullFailed)
            assert (ending.event.code, ending.event.opened) == (GONE, sequence) and ending.event.covers > sequence


def test_a_cut_leaves_room_and_stops_at_the_mark() -> None:
    extent = Extent(first=101, last=1100, bytes=100_000, made="", kept=0.0)
    assert keeper.beyond(extent, 0, 5000) == 101, "no limit"
    assert keeper.beyond(extent, 200_000, 5000) == 101, "within it"
    assert keeper.beyond(extent, 50_000, 5000) == 651, "a tenth below it"
    assert keeper.beyond(extent, 50_000, 300) == 301
    assert keeper.beyond(Extent(first=5, last=4, bytes=0, made="", kept=0.0), 10, 1) == 5

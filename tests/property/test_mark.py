"""A board from the low-water mark decides what one from the beginning decides; and so does one that forgets at once."""

from __future__ import annotations

import random

import msgspec
import pytest

from pullonce.pulling.identity import identify_request
from schemas.events import BlobClaimed, BlobFailed, Event, PullCompleted, PullFailed, PullRequested, Sharing
from schemas.orders import ResolveReference
from services.coordinator import in_flight, waits
from services.coordinator.board import Board
from services.coordinator.flight import Flight
from services.coordinator.intents import End, Want
from services.coordinator.low_water import LowWater
from services.coordinator.mark import Mark, decode, encode
from tests.property.test_protocol import ended_badly
from tests.property.world import STORE, Faults, World, pictures, run

SEEDS = 40
Decided = tuple[object, ...]


def decided(board: Board) -> Decided:
    """All that a board decides at a position: which flights there are, what each waits for, how it ends, and what is wanted.

    Not: whose work it is said to be that two flights share. That is bookkeeping, and depends on who was first to want it.
    """
    flights = sorted((each.name, _of(each)) for each in board.flights.values())
    wants = sorted((each.key, _order(each)) for each in board.intents() if isinstance(each, Want))
    return flights, wants


def _of(flight: Flight) -> Decided:
    ending = flight.ending
    if isinstance(ending, PullCompleted):
        ending = msgspec.structs.replace(ending, sharing=Sharing(requests=ending.sharing.requests))
    return (
        flight.opened, flight.state, flight.requests, flight.last_request, flight.late, sorted(flight.missing),
        flight.recorded, flight.again, list(flight.requesters._sequences), list(flight.requesters._seals), str(ending),
    )  # fmt: skip


def _order(want: Want) -> str:
    return str(want.order)


def fold(board: Board, log: list[Event], last: int) -> None:
    for sequence in range(board.position + 1, last + 1):
        board.apply(log[sequence - 1], sequence)


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_from_the_mark_as_from_the_beginning(first: int) -> None:
    compared = 0
    for seed in range(first, first + 10):
        report = run(seed, faults=Faults(coordinator_dies=0.01))
        for mark in report.marks:
            compared += compare(report.log, mark, f"seed {seed}, mark at {mark.position}")
    assert compared > 100, "nothing was compared"


def compare(log: list[Event], mark: Mark, where: str) -> int:
    """Fold the rest of a log on both boards, position by position; returns how many were compared."""
    read = decode(encode(mark))
    assert read == mark
    whole, short = Board(), Board(read)
    fold(whole, log, mark.seen)
    fold(short, log, mark.seen)
    for sequence in range(mark.seen, len(log) + 1):
        fold(whole, log, sequence)
        fold(short, log, sequence)
        assert decided(short) == decided(whole), f"{where}: at {sequence} of {len(log)}"
    return len(log) - mark.seen


def differs(log: list[Event], mark: Mark) -> bool:
    try:
        compare(log, mark, "")
    except AssertionError:
        return True
    return False


def test_flights_from_before_the_mark_must_be_known() -> None:
    reports = [run(seed) for seed in range(5)]
    without = [(report.log, msgspec.structs.replace(mark, flights={})) for report in reports for mark in report.marks]
    assert any(differs(log, mark) for log, mark in without), "taking them out went unnoticed"


def test_orders_from_before_the_mark_must_be_known() -> None:
    """A pull that left behind the order of a blob; another that waits for that blob, and fails with that order."""
    first, second = (identify_request(PullRequested(reference="a", credential=name)) for name in ("", "other"))
    about = {"reference": first.reference, "flight": first.flight, "opened": 1}
    world = World(0, pictures(random.Random(0)))
    image = max(world.images, key=lambda each: len(each.layers))
    order = ResolveReference(store=STORE, reference=image.reference, flight=first.flight, opened=1)
    resolved = image.resolved(order, world)
    what = resolved.layers[0].blob.digest
    log: list[Event] = [
        PullRequested(reference="a"),
        msgspec.structs.replace(resolved, **about),
        BlobClaimed(digest=what, revision=7, holder="c"),
        PullFailed(**about, covers=4, code="x", message=""),  # type: ignore[arg-type]
        PullRequested(reference="a", credential="other"),
        msgspec.structs.replace(resolved, reference=second.reference, flight=second.flight, opened=5),
        BlobFailed(digest=what, revision=7, source=resolved.source, concerns="key", code="disk.full", message=""),
    ]
    board = Board()
    low_water = LowWater(board)
    marks = []
    for sequence, event in enumerate(log, 1):
        board.apply(event, sequence)
        low_water.note(event)
        marks += [low_water.look()] if sequence >= 3 else []
    (mark,) = [each for each in marks if each and each.position == 3]
    assert compare(log, mark, "with orders") > 2
    assert differs(log, msgspec.structs.replace(mark, orders={}))


def test_a_board_that_forgets_at_once_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "FORGOTTEN_AFTER", 3)
    for seed in range(20):
        report = run(seed)
        assert not report.wrong, f"seed {seed}: {ended_badly(report)}"
        for mark in report.marks:
            compare(report.log, mark, f"seed {seed}, mark at {mark.position}")


def test_boards_that_forget_late_and_soon_end_the_same_flights_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without faults, what is forgotten is asked of the disk again: at most more work, never another ending."""
    whole = run(3, faults=Faults.none())
    monkeypatch.setattr(waits, "FORGOTTEN_AFTER", 5)
    forgetful = Board()
    fold(forgetful, whole.log, len(whole.log))
    assert not forgetful.flights
    assert len(forgetful.waits) <= 20


def test_a_flight_whose_request_was_cut_off_ends_by_a_failure() -> None:
    """A log that lost its beginning: what it still tells of older flights ends them, and no later flight of the same key."""
    ended = 0
    for seed in range(20):
        report = run(seed, faults=Faults.none())
        for first in range(2, len(report.log), 17):
            board = Board(first=first)
            ends = {}
            for sequence in range(first, len(report.log) + 1):
                for intent in board.apply(report.log[sequence - 1], sequence):
                    if isinstance(intent, End) and intent.ending.opened < first:
                        ends[intent.ending.flight] = intent.ending
            assert not board.flights, f"seed {seed}: left in flight from {first} on"
            for ending in ends.values():
                assert getattr(ending, "code", "") == in_flight.GONE
                assert ending.covers <= first, "it answers only what was cut off"
            ended += len(ends)
    assert ended, "no log was cut inside a flight"

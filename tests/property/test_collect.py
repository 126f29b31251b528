"""Pulls and collectors in one world, interleaved at random: no pull ends with something missing; what that needs."""

from dataclasses import replace

import pytest

from tests.property.collector import Collector
from tests.property.outsider import Outsider
from tests.property.test_protocol import ended_badly
from tests.property.world import Cleaner, Faults, Protocol, Report, World, run

SEEDS = 100
SOME_SEEDS = 40
TIDY = replace(Faults(), blob_lost=0.0)
"""A hostile world in which only collectors remove anything."""


def collected(seed: int, *, faults: Faults = TIDY, **without: bool) -> Report:
    return run(seed, faults=faults, cleaners=two, protocol=Protocol(**without))


def two(world: World) -> list[Cleaner]:
    return [Collector(world, "gc1"), Collector(world, "gc2")]


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_no_pull_ends_with_something_missing(first: int) -> None:
    """Coordinators, workers and collectors die or stop between any two steps; requests come, leave and fail."""
    removed = taken_over = 0
    for seed in range(first, first + 10):
        report = collected(seed)
        assert not report.wrong, f"seed {seed}: {ended_badly(report)}"
        assert not report.premature, f"seed {seed}: ended with something missing, at {report.premature}"
        removed += report.collected
        taken_over += report.taken_over
    assert removed, "nothing was ever collected"
    assert taken_over, "no claim of a dead coordinator was ever met"


@pytest.mark.parametrize("first", range(0, SOME_SEEDS, 10))
def test_every_request_is_answered_where_blobs_vanish_too(first: int) -> None:
    for seed in range(first, first + 10):
        report = collected(seed, faults=Faults())
        assert not report.wrong, f"seed {seed}: {ended_badly(report)}"


@pytest.mark.parametrize("part", ["uses", "look_again"])
def test_without_this_part_a_pull_ends_with_something_missing(part: str) -> None:
    assert any(collected(seed, **{part: False}).premature for seed in range(300)), f"taking out {part!r} went unnoticed"


def promised(seed: int, **without: bool) -> Report:
    """A world in which somebody outside is promised layers while collectors remove what nobody needs."""
    return run(seed, faults=TIDY, cleaners=beside_an_outsider, protocol=Protocol(**without))


def beside_an_outsider(world: World) -> list[Cleaner]:
    return [Outsider(world, Collector(world, "gc1")), Collector(world, "gc2")]


@pytest.mark.parametrize("first", range(0, SOME_SEEDS, 10))
def test_what_was_promised_to_others_stays(first: int) -> None:
    kept = removed = 0
    for seed in range(first, first + 10):
        report = promised(seed)
        assert not report.broken, f"seed {seed}: removed although it was promised: {report.broken}"
        assert not report.wrong and not report.premature, f"seed {seed}: {ended_badly(report)}, {report.premature}"
        kept, removed = kept + report.kept, removed + report.collected
    assert kept, "nothing was ever promised"
    assert removed, "nothing was ever collected"


@pytest.mark.parametrize("part", ["holds", "hold_first", "look_again"])
def test_without_this_part_a_promise_is_broken(part: str) -> None:
    assert any(promised(seed, **{part: False}).broken for seed in range(300)), f"taking out {part!r} went unnoticed"

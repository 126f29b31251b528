"""Pulls and collectors in one world, interleaved at random: no pull ends with something missing; what that needs."""

from dataclasses import replace

import pytest

from tests.property.collector import Collector
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
    assert any(collected(seed, **{part: False}).premature for seed in range(SOME_SEEDS)), f"taking out {part!r} went unnoticed"

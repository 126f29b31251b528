"""The protocol under random interleavings, duplicates, deaths and losses; and proof that each part of it is needed."""

import pytest

from services.coordinator import waits
from tests.property.world import Faults, Protocol, Report, run

SEEDS = 150
SOME_SEEDS = 25


def ended_badly(report: Report) -> str:
    return (
        f"unanswered {report.unanswered[:5]}, ended twice {report.ended_twice[:5]}, stuck {report.stuck}, "
        f"ended by others' failures {report.wronged[:5]}"
    )


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_every_request_gets_exactly_one_ending(first: int) -> None:
    """Three coordinators, dying and restarting; workers that die or fail; lost blobs; a bus that forgets orders."""
    for seed in range(first, first + 10):
        report = run(seed)
        assert not report.wrong, f"seed {seed}: {ended_badly(report)}"


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_in_a_quiet_world_every_key_is_ordered_once(first: int) -> None:
    for seed in range(first, first + 10):
        report = run(seed, faults=Faults.none())
        assert not report.wrong, f"seed {seed}: {ended_badly(report)}"
        assert not report.premature, f"seed {seed}: completed before the image was on disk, at {report.premature}"
        again = {key: times for key, times in report.deliveries.items() if times > 1}
        assert not again, f"seed {seed}: ordered more than once: {again}"


@pytest.mark.parametrize("coordinators", [1, 2, 5])
def test_any_number_of_coordinators(coordinators: int) -> None:
    for seed in range(SOME_SEEDS):
        report = run(seed, coordinators=coordinators)
        assert not report.wrong, f"seed {seed}: {ended_badly(report)}"


def test_a_failure_that_spreads_to_other_credentials_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "concerned", lambda event, flight, key: event.concerns != "nobody")
    assert any(run(seed).wronged for seed in range(SOME_SEEDS))


@pytest.mark.parametrize("part", ["lease", "ensure", "claim_over", "own_names"])
def test_without_this_part_requests_stay_unanswered(part: str) -> None:
    faults = Faults(attempt_fails=0.4) if part == "own_names" else Faults()
    reports = [run(seed, faults=faults, protocol=Protocol(**{part: False}), most_steps=20_000) for seed in range(SOME_SEEDS)]
    assert any(report.unanswered for report in reports), f"taking out {part!r} went unnoticed"


def test_without_an_id_an_ending_is_stored_more_than_once() -> None:
    assert any(run(seed, protocol=Protocol(ending_id=False, owners=False)).ended_twice for seed in range(SOME_SEEDS))


def test_without_compare_and_set_work_is_ordered_more_than_once() -> None:
    reports = [run(seed, faults=Faults.none(), protocol=Protocol(fence=False, owners=False)) for seed in range(SOME_SEEDS)]
    assert any(times > 1 for report in reports for times in report.deliveries.values())


SILENT = frozenset(("library/repo0",))


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_a_source_that_never_delivers_keeps_only_those_waiting_who_have_no_other(first: int) -> None:
    """Images of two repositories share blobs, and one repository is mute: nobody who asks the other one waits for it."""
    for seed in range(first, first + 10):
        for faults in (None, Faults.none()):
            report = run(seed, faults=faults, silent=SILENT, most_steps=12_000)
            assert report.waiting <= SILENT, f"seed {seed}: {ended_badly(report)}"
            assert not report.ended_twice and not report.wronged, f"seed {seed}: {ended_badly(report)}"


def test_without_ordering_elsewhere_others_wait_for_a_mute_source() -> None:
    held = Protocol(elsewhere=False)
    reports = [run(seed, faults=Faults.none(), silent=SILENT, protocol=held, most_steps=12_000) for seed in range(10)]
    assert any(report.waiting - SILENT for report in reports)


def test_every_request_is_answered_where_all_coordinators_act() -> None:
    """A lease spares work and is no fence: those who act without one cost orders too many, and nothing else."""
    for seed in range(SOME_SEEDS):
        report = run(seed, protocol=Protocol(owners=False))
        assert not report.wrong, f"seed {seed}: {ended_badly(report)}"

"""Amounts and durations in the words of the command line."""

import pytest

from pullonce.cli import units


@pytest.mark.parametrize(
    "count, shown",
    [
        (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1.0 kB"), (99_940, "99.9 kB"), (999_949, "999.9 kB"),
        (999_950, "1.0 MB"), (12_345_678, "12.3 MB"), (999_950_000, "1.0 GB"), (5 * 10**9, "5.0 GB"),
        (10**12, "1.0 TB"), (10**16, "10000.0 TB"),
    ],
)  # fmt: skip
def test_bytes_have_the_unit_that_reads_best(count: int, shown: str) -> None:
    assert units.amount(count) == shown


@pytest.mark.parametrize(
    "done, whole, shown", [(0, 0, "0/0 B"), (10, 2_000, "0.0/2.0 kB"), (5e6, 2e7, "5.0/20.0 MB"), (7, 9, "7/9 B")]
)
def test_two_counts_have_one_unit(done: float, whole: float, shown: str) -> None:
    assert units.amounts(done, whole) == shown


@pytest.mark.parametrize(
    "seconds, shown", [(0.0, "0 ms"), (0.34, "340 ms"), (1.0, "1.0 s"), (119.0, "119.0 s"), (186.0, "3.1 min")]
)
def test_what_was_measured(seconds: float, shown: str) -> None:
    assert units.took(seconds) == shown

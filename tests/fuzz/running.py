"""Draw and check, in rounds whose seed is known, until the time is over."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.target import Target

_ROUND = 100
"""Examples of one seed."""
_SEEDS = 1 << 32

settings.register_profile(
    "fresh",
    max_examples=_ROUND,
    database=None,
    derandomize=False,
    deadline=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def run(targets: Sequence[Target], seconds: float, first: int, say: Callable[[str], None]) -> bool:
    """Whether nothing failed. Each target has an equal share of the time, and one round at least; the first failure ends it.

    Args:
        first: seed of the first round of each; the next ones count on from it.
    """
    fine = [_run(target, seconds / len(targets), first, say) for target in targets]
    return all(fine)


def _run(target: Target, seconds: float, first: int, say: Callable[[str], None]) -> bool:
    until = time.monotonic() + seconds
    for rounds in itertools.count():
        number = (first + rounds) % _SEEDS
        if why := check_round(target, number):
            say(f"{why}\nfuzz: {target.name} failed with seed {number}; the same again: ./dev fuzz 0 {number} {target.name}")
            return False
        if time.monotonic() >= until:
            say(f"fuzz: {target.name}: {(rounds + 1) * _ROUND} examples from seed {first}")
            return True
    raise AssertionError("unreachable")


def check_round(target: Target, number: int) -> str:
    """Draw and check the examples of one seed; what failed, its smallest example included, or nothing."""

    @seed(number)
    @settings(settings.get_profile("fresh"))
    @given(target.strategy)
    def check(drawn: object) -> None:
        target.check(drawn)

    try:
        check()
    except Exception as exc:
        return "".join(traceback.format_exception(exc))
    return ""

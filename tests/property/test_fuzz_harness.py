"""The search by fresh seeds finds what is wrong, says by which seed, and that seed finds it again."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.__main__ import TARGETS
from tests.fuzz.running import check_round, run
from tests.fuzz.target import Target


def _never_longer_than_two(data: bytes) -> None:
    if len(data) > 2:
        raise ValueError(f"{len(data)} bytes")


BROKEN = Target("broken", st.binary(max_size=20), _never_longer_than_two)
FINE = Target("fine", st.binary(), lambda data: None)


def test_what_fails_is_said_with_its_seed_and_its_smallest_example() -> None:
    said: list[str] = []
    assert not run([BROKEN, FINE], 0.0, 41, said.append)
    assert "./dev fuzz 0 41 broken" in said[0]
    assert "ValueError: 3 bytes" in said[0] and r"b'\x00\x00\x00'" in said[0]
    assert said[1].startswith("fuzz: fine: 100 examples")
    assert check_round(BROKEN, 41).splitlines()[-6:] == check_round(BROKEN, 41).splitlines()[-6:] != []


def test_other_seeds_draw_other_examples() -> None:
    drawn: dict[int, list[bytes]] = {}
    for number in (1, 1, 2):
        seen: list[bytes] = []
        assert check_round(Target("seen", st.binary(max_size=9), seen.append), number) == ""
        assert drawn.setdefault(number, seen) == seen
    assert drawn[1] != drawn[2]


def test_every_target_has_a_name_of_its_own_and_passes_a_round() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS) >= 8
    assert run(TARGETS, 0.0, 7, lambda _: None)

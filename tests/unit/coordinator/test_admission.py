"""Whose turn it is to be resolved."""

from __future__ import annotations

from services.coordinator.admission import SWEPT, Admission

OF_A_REGISTRY, OF_A_STORE = 32, 128
HUB = ("default", "docker.io")


class Turns:
    """Keys that are wanted, until they are settled."""

    def __init__(self) -> None:
        self.admission = Admission(OF_A_REGISTRY, OF_A_STORE)
        self.wanted: set[str] = set()

    def ask(self, key: str, place: tuple[str, str] = HUB) -> bool:
        self.wanted.add(key)
        return self.admission.may_go(key, f"flight {key}", place, wanted=self.wanted.__contains__)

    def settle(self, *keys: str) -> list[str]:
        self.wanted.difference_update(keys)
        for key in keys:
            self.admission.done(key)
        return list(self.admission.next(self.wanted.__contains__))


def test_a_flood_of_one_registry_waits_and_goes_in_its_order() -> None:
    turns = Turns()
    went = [turns.ask(str(number)) for number in range(100)]
    assert went == [True] * OF_A_REGISTRY + [False] * (100 - OF_A_REGISTRY)
    assert turns.ask("other", ("default", "ghcr.io")) and turns.ask("elsewhere", ("rack-2", "docker.io"))
    assert turns.settle("0", "5") == ["32", "33"]
    assert turns.settle(*map(str, range(1, 20))) == [str(number) for number in range(34, 52)]
    assert turns.ask("1000") is False, "nobody overtakes"


def test_many_registries_share_the_store_by_turns() -> None:
    turns = Turns()
    places = [("default", f"r{number}.example") for number in range(10)]
    for number in range(20):
        for place in places:
            turns.ask(f"{place[1]}/{number}", place)
    out = OF_A_STORE
    assert turns.admission.waiting == 200 - out
    freed = turns.settle(*(f"{place[1]}/{number}" for place in places for number in range(2)))
    assert len(freed) == 20 and len({key.partition("/")[0] for key in freed}) == 10, "two of each"


def test_what_was_pulled_before_does_not_wait() -> None:
    turns = Turns()
    for number in range(500):
        turns.ask(str(number))
    turns.admission.completed("flight mine")
    assert turns.ask("mine") and not turns.ask("not mine")


def test_who_is_not_wanted_any_more_takes_nobodys_turn() -> None:
    turns = Turns()
    for number in range(200):
        turns.ask(str(number))
    left = [str(number) for number in range(32, 199)]
    turns.wanted.difference_update(left)
    assert turns.settle("0") == ["199"] and turns.admission.waiting == 0
    assert turns.settle(*map(str, range(200))) == [] and turns.ask("fresh")


def test_what_known_images_leave_behind_is_swept() -> None:
    """An image that was pulled before asks no leave, and nobody else need wait for it to be forgotten."""
    turns = Turns()
    turns.admission.completed("again")
    for number in range(10 * SWEPT):
        key = f"resolve.default.again.{number}"
        turns.wanted = {key}
        assert turns.admission.may_go(key, "again", HUB, wanted=turns.wanted.__contains__)
    assert len(turns.admission._out) <= SWEPT

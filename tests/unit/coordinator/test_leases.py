"""Who acts for which stores: tables written in turn by coordinators that come, go and die."""

from __future__ import annotations

import random

import pytest

from services.coordinator.leases import EVERY, PARTITIONS, LeaseTable, decode, encode, left, partition_of, renewed


def settle(names: list[str], table: LeaseTable, rounds: int = 8) -> LeaseTable:
    for _ in range(rounds):
        for name in names:
            table = renewed(table, name)
    return table


def test_one_alone_takes_all_at_once() -> None:
    table = renewed(LeaseTable(), "a")
    assert table.of("a") == EVERY and table.beats == {"a": 1}
    assert renewed(table, "a").beats == {"a": 2}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 16, 20])
def test_every_partition_has_one_owner_and_shares_are_even(count: int) -> None:
    names = [f"c{number}" for number in range(count)]
    table = settle(names, renewed(LeaseTable(), "c0"))
    shares = [len(table.of(name)) for name in names]
    assert sum(shares) == PARTITIONS and max(shares) - min(shares) <= 1
    assert settle(names, table).owners == table.owners, "nothing moves any more"


def test_nothing_is_taken_from_one_that_beats_and_nothing_given_back_that_it_is_busy_with() -> None:
    table = renewed(renewed(LeaseTable(), "a"), "b")
    assert table.of("a") == EVERY and not table.of("b")
    busy = renewed(table, "a", keep=EVERY)
    assert busy.of("a") == EVERY
    given = renewed(busy, "a", keep=frozenset({15}))
    assert len(given.of("a")) == 8 and 15 in given.of("a")
    assert renewed(given, "b").of("b") == EVERY - given.of("a")


def test_what_the_dead_owned_is_taken() -> None:
    table = settle(["a", "b"], LeaseTable())
    after = renewed(table, "b", dead=["a"])
    assert after.of("b") == EVERY and "a" not in after.beats


def test_one_that_was_taken_for_dead_comes_back_with_nothing() -> None:
    table = renewed(settle(["a", "b"], LeaseTable()), "b", dead=["a"])
    assert not renewed(table, "a").of("a")
    assert len(settle(["b", "a"], table).of("a")) == 8


def test_who_stops_leaves_everything() -> None:
    table = left(settle(["a", "b"], LeaseTable()), "a")
    assert not table.of("a") and list(table.beats) == ["b"]
    assert renewed(table, "b").of("b") == EVERY


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_partition_has_at_most_one_owner_and_in_the_end_one(seed: int) -> None:
    chance, table, alive = random.Random(seed), LeaseTable(), ["a"]
    for number in range(200):
        draw = chance.random()
        if draw < 0.1:
            alive.append(f"n{number}")
        elif draw < 0.15 and len(alive) > 1:
            table = left(table, alive.pop(chance.randrange(len(alive))))
        elif draw < 0.2 and len(alive) > 1:
            alive.pop(chance.randrange(len(alive)))
        else:
            dead = [name for name in table.beats if name not in alive and chance.random() < 0.3]
            keep = frozenset(chance.sample(range(PARTITIONS), chance.randrange(4)))
            table = renewed(table, chance.choice(alive), dead=dead, keep=keep)
    table = renewed(table, alive[0], dead=[name for name in table.beats if name not in alive])
    table = settle(alive, table, rounds=20)
    assert set(table.owners) <= set(alive) and "" not in table.owners


def test_the_partition_of_a_store_is_what_it_was() -> None:
    """Coordinators of different versions run at one time."""
    assert [partition_of(name) for name in ("default", "s00001", "rack-7_node-12")] == [15, 2, 11]
    assert {partition_of(f"s{number}") for number in range(200)} == EVERY


@pytest.mark.parametrize("value", [b"", b"junk", b"{}", b'{"owners":["a"]}', b'{"owners":[1]}'])
def test_what_is_no_table_is_an_empty_one(value: bytes) -> None:
    assert decode(value).owners == LeaseTable().owners


def test_a_table_survives_the_bucket() -> None:
    table = settle(["a", "b"], LeaseTable())
    assert decode(encode(table)) == table

"""Which coordinator acts for which stores: the table of partitions, and what one may write into it. Pure.

The stores are divided into partitions by a hash of their names. Every coordinator folds everything; only the owner of a
partition acts for its stores. All write one table by compare-and-set: each its own beat, and whose each partition is. When a
beat stands still for a lease, by the clock of whoever looks, its coordinator is taken for dead, and what it owned is free. Who
has more than its share gives the surplus back; what is free is taken by those who have less. One alone takes all.

That two act for one partition after all (one was stopped for longer than a lease, and does not know yet) costs an order too
many and no more: each key has its claim.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from schemas.malformed import Malformed, read

PARTITIONS = 16
"""Fixed for ever: the stores of a partition must be the same for all that run at one time."""

EVERY = frozenset(range(PARTITIONS))


class LeaseTable(Struct, frozen=True):
    """As it is written down, in JSON."""

    owners: tuple[str, ...] = ("",) * PARTITIONS
    """By partition; empty: nobody's."""
    beats: dict[str, int] = {}
    """Coordinator → a number that it changes again and again."""

    def of(self, name: str) -> frozenset[int]:
        return frozenset(number for number, owner in enumerate(self.owners) if owner == name)


_decoder = msgspec.json.Decoder(LeaseTable)


def partition_of(store: str) -> int:
    """The partition of a store."""
    return crc32(store.encode()) % PARTITIONS


def encode(table: LeaseTable) -> bytes:
    return msgspec.json.encode(table)


def decode(value: bytes) -> LeaseTable:
    """Read a table; an empty one for what is none."""
    try:
        table = read(_decoder, value, "table")
    except Malformed:
        return LeaseTable()
    return table if len(table.owners) == PARTITIONS else LeaseTable()


def renewed(table: LeaseTable, me: str, *, dead: Iterable[str] = (), keep: frozenset[int] = frozenset()) -> LeaseTable:
    """The table as one coordinator writes it: its beat, its share, without the dead.

    Args:
        dead: those whose beat stood still.
        keep: partitions of its own for which it is still finishing something: they are not given back yet.
    """
    beats = {name: beat for name, beat in table.beats.items() if name not in set(dead)}
    beats[me] = beats.get(me, 0) + 1
    owners = [owner if owner in beats else "" for owner in table.owners]
    least, most = PARTITIONS // len(beats), -(-PARTITIONS // len(beats))
    mine = [number for number, owner in enumerate(owners) if owner == me]
    needy = any(owners.count(name) < least for name in beats if name != me)
    for number in reversed(mine):
        if owners.count(me) <= (least if needy else most):
            break
        if number not in keep:
            owners[number] = ""
    if not needy or len(mine) < least:
        for number, owner in enumerate(owners):
            if not owner and owners.count(me) < most:
                owners[number] = me
    return LeaseTable(tuple(owners), beats)


def left(table: LeaseTable, me: str) -> LeaseTable:
    """The table as one writes it that stops."""
    beats = {name: beat for name, beat in table.beats.items() if name != me}
    return LeaseTable(tuple("" if owner == me else owner for owner in table.owners), beats)

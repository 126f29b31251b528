"""Who has asked for a flight, and what it takes to leave it: 16 bytes a request, however many there are. Pure.

A request bears the seal of a secret that only its requester knows. Whoever withdraws it says the secret; nobody else can,
though every client may publish a withdrawal and sequences are easily guessed."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from schemas.subjects import seal_of

_DIGITS = 16
"""Hexadecimal digits of a seal that are kept: one in 2^64 secrets would fit by luck."""


class Requesters:
    """The requests of one flight, in the order of the log."""

    __slots__ = ("_seals", "_sequences")

    def __init__(self) -> None:
        self._sequences = array("Q")
        self._seals = array("Q")
        """Beginning of each one's seal; 0 where there is none, or where the requester has left."""

    def came(self, sequence: int, seal: str) -> None:
        """A request was made; later ones have larger sequences."""
        self._sequences.append(sequence)
        self._seals.append(int(seal[:_DIGITS], 16) if seal else 0)

    def leaves(self, sequence: int, secret: str) -> bool:
        """Whether a withdrawal counts: it names a request of this flight, knows its secret, and is the first to do so. A
        request without a seal cannot be withdrawn."""
        at = bisect_left(self._sequences, sequence)
        if at == len(self._sequences) or self._sequences[at] != sequence or not self._seals[at]:
            return False
        if int(seal_of(secret)[:_DIGITS], 16) != self._seals[at]:
            return False
        self._seals[at] = 0
        return True

    def since(self, sequence: int) -> Requesters:
        """Those from a sequence on: they came too late for this flight, and open the next."""
        at, rest = bisect_left(self._sequences, sequence), Requesters()
        rest._sequences, rest._seals = self._sequences[at:], self._seals[at:]
        return rest

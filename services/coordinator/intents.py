"""What a board wants done. Pure values: who does it, and whether it is still to be done, the claims decide."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.orders import Order
from services.coordinator.flight import Ending


@dataclass(frozen=True, slots=True)
class Want:
    """A key is wanted: unless somebody is at it already, claim it and give the order."""

    key: str
    order: Order
    """What to order, with revision 0: the claim's revision is filled in by whoever wins it."""
    since: int
    """The key has been wanted anew since this position: a settlement up to it is void."""
    done: int
    """Highest revision under which a fact about the key was folded: an order up to it is spent."""
    hearsay: bool
    """An order is said to be queued, but nobody has made sure of it since this coordinator began to act."""


@dataclass(frozen=True, slots=True)
class End:
    """A flight has ended: store its ending."""

    ending: Ending
    by: str
    """Claim key whose fact ended it: whoever won that claim says it first."""


@dataclass(frozen=True, slots=True)
class Settle:
    """A key needs no more work: whoever holds its claim may say so there."""

    key: str
    at: int


Intent = Want | End | Settle

"""What a board wants done. Pure values: who does it, and whether it is still to be done, the claims decide."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.events import BlobFailed, Event, LayerFailed
from schemas.orders import FetchBlob, Order, UnpackLayer
from schemas.subjects import store_of_key
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

    @property
    def store(self) -> str:
        return store_of_key(self.key)


@dataclass(frozen=True, slots=True)
class End:
    """A flight has ended: store its ending."""

    ending: Ending
    by: str
    """Claim key whose fact ended it."""

    @property
    def store(self) -> str:
        return self.ending.store


@dataclass(frozen=True, slots=True)
class Settle:
    """A key needs no more work: whoever holds its claim may say so there."""

    key: str
    at: int

    @property
    def store(self) -> str:
        return store_of_key(self.key)


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Nobody waits for a key any more, and an order for it is queued or running: have that stopped."""

    key: str
    order: Order
    """As it was given: with the claim's revision."""

    @property
    def store(self) -> str:
        return self.order.store


Intent = Want | End | Settle | Withdraw


def withdrawn(order: Order) -> Event:
    """The fact that an order was withdrawn: an attempt that concerns nobody and may be made again."""
    code, message = "order.withdrawn", "nobody waits for it any more"
    match order:
        case FetchBlob():
            return BlobFailed(
                store=order.store, digest=order.blob.digest, revision=order.revision, source=order.source,
                concerns="nobody", code=code, message=message,
            )  # fmt: skip
        case UnpackLayer():
            return LayerFailed(
                store=order.store, chain_id=order.chain_id, blob=order.blob.digest, revision=order.revision,
                concerns="nobody", code=code, message=message,
            )  # fmt: skip
    raise AssertionError(f"only the orders of blobs and layers are withdrawn, not {order!r}")

"""The value of a claim key, as it lies in the bucket: who has the right to work on a blob, a layer or a flight's own step.

    (absent) ──take──▶ held ──order accepted──▶ ordered ──fact folded──▶ settled ──▶ (absent)
                        │  lease over                        │ wanted again   │ removed from the store
                        ▼                                    ▼                ▼
                     (absent)                               held           collecting ──▶ settled

*held* has a short lease, since its writer may die before the order is in the queue. *ordered* needs none: from there on the
work queue guarantees the work. *settled* only tells coordinators that lag behind to keep folding. Under *collecting* a
collector removes what nobody needs; whoever needs it after all claims over it at once. A collector also claims over an
*ordered* whose order is no longer in the queue: the coordinator that was to settle it has died.
"""

import msgspec
from msgspec import Struct

from schemas.malformed import Malformed, read


class Held(Struct, frozen=True, tag="held", tag_field="state"):
    """Somebody is about to order the work."""

    by: str
    nonce: str
    """Unique to this write, so that a writer with an unclear outcome recognises its own."""


class Ordered(Struct, frozen=True, tag="ordered", tag_field="state"):
    """The order under `revision` was accepted by the work queue."""

    by: str
    revision: int


class Settled(Struct, frozen=True, tag="settled", tag_field="state"):
    """The fact at log position `at` ended the work."""

    by: str
    at: int


class Collecting(Struct, frozen=True, tag="collecting", tag_field="state"):
    """A collector is about to remove from the store what the key names."""

    by: str
    nonce: str
    """As in `Held`."""


Claim = Held | Ordered | Settled | Collecting

_decoder: msgspec.json.Decoder[Claim] = msgspec.json.Decoder(Claim)


def encode(claim: Claim) -> bytes:
    """Write a claim."""
    return msgspec.json.encode(claim)


def decode(value: bytes) -> Claim | None:
    """Read a claim; None for what is no claim (somebody else wrote into the bucket): it may be claimed over."""
    try:
        return read(_decoder, value, "claim")
    except Malformed:
        return None

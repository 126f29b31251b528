"""The value of a claim key, as it lies in the bucket: who has the right to work on a blob, a layer or a flight's own step.

    (absent) ──take──▶ held ──fact folded──▶ settled ──▶ (absent)
                        │ wanted again           │ removed from the store
                        ▼                        ▼
                       held                  collecting ──▶ settled

*held* is the right to order the work under the revision of the claim; who acts for the store's partition writes it and sends
the order. *settled* only tells others that a fact has ended that. Under *collecting* a collector removes what nobody needs;
whoever needs it after all claims over it at once. Versions up to 0.1 wrote *held* with a short lease and, when the order was in
the queue, *ordered*. A collector claims over either if the order is not in the queue: whoever was to settle it has died.
"""

import msgspec
from msgspec import Struct

from schemas.malformed import Malformed, read


class Held(Struct, frozen=True, tag="held", tag_field="state"):
    """Somebody has the right to order the work, and does so at once: the order bears the revision of this claim."""

    by: str
    nonce: str
    """Unique to this write, so that a writer with an unclear outcome recognises its own."""
    leased: bool = False
    """Its writer acted for the store's partition. Whoever does so now need not wait for it: the queue tells what became of the
    order. Up to version 0.1 it is false, the claim lasts for one short lease, and becomes *ordered* with its order."""


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

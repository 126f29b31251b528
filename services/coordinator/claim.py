"""One key's claim, as it lies in the bucket, and what a coordinator that wants the key may do about it. Pure.

    (absent) ──take──▶ held ──order accepted──▶ ordered ──fact folded──▶ settled ──▶ (absent)
                        │  lease over                        │ wanted again
                        ▼                                    ▼
                     (absent)                               held

*held* has a short lease, since its writer may die before the order is in the queue. *ordered* needs none: from there on the
work queue guarantees the work. *settled* only tells coordinators that lag behind to keep folding.
"""

from dataclasses import dataclass

import msgspec
from msgspec import Struct

HOLD = 5.0
"""Seconds a holder has to get its order accepted, by the clock of whoever waits for it. Longer only delays the recovery from
a death; shorter only costs a superfluous order when a coordinator is paused."""

ORDERED = 86_400.0
"""Seconds an *ordered* claim is kept. Only tidiness: a claim whose coordinators all died vanishes some day."""

SETTLED = 120.0
"""Seconds a *settled* claim is kept: longer than any coordinator lags."""


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


Claim = Held | Ordered | Settled

_decoder: msgspec.json.Decoder[Claim] = msgspec.json.Decoder(Claim)


def encode(claim: Claim) -> bytes:
    return msgspec.json.encode(claim)


def decode(value: bytes) -> Claim | None:
    """Read a claim; None for what is no claim (somebody else wrote into the bucket): it may be claimed over."""
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Take:
    """Claim the key over its present revision."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody is at it, or this fold lags. Look again later, unless the fold has brought news by then."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Resend:
    """The order was accepted once. Make sure that the queue still has it: sending it again is harmless."""

    revision: int


def judge(claim: Claim | None, *, since: int, done: int, position: int, waited: bool, ensure: bool) -> Take | Wait | Resend:
    """Decide about a key that is wanted and whose claim is taken.

    Args:
        since: the key has been wanted anew since this log position (it failed or was lost there; 0: never settled).
        done: highest revision under which a fact about the key was folded: an order up to it is spent.
        position: last folded log position.
        waited: this very claim was found before, and a whole lease has passed since.
        ensure: this coordinator has only now begun to act, so the fold will not tell it what became of an accepted order.
    """
    match claim:
        case None:
            return Take()
        case Held():
            return Take() if waited else Wait(HOLD)
        case Ordered(revision=revision) if revision <= done:
            return Take()
        case Ordered(revision=revision):
            return Resend(revision) if waited or ensure else Wait(HOLD)
        case Settled(at=at) if at > position and not (waited or ensure):
            return Wait(HOLD)  # the fact lies ahead of this fold
        case Settled():
            return Take()

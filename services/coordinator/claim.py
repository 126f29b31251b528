"""What a coordinator that wants a key may do about the claim it finds there: one table. Pure.

The claims themselves are in `schemas.claims`.
"""

from dataclasses import dataclass

from schemas.claims import Claim, Collecting, Held, Ordered, Settled, decode, encode

__all__ = ["AskClaim", "Claim", "Collecting", "Held", "Ordered", "Settled", "Take", "Wait", "decode", "encode", "judge"]

HOLD = 5.0
"""Seconds a holder has to get its order accepted, by the clock of whoever waits for it. Longer only delays the recovery from
a death; shorter only costs a superfluous order when a coordinator is paused."""

ORDERED = 86_400.0
"""Seconds for which a claim is kept that nobody settles. Only tidiness: one whose coordinators all died vanishes some day."""

SETTLED = 120.0
"""Seconds a *settled* claim is kept: longer than any coordinator lags."""


@dataclass(frozen=True, slots=True)
class Take:
    """Claim the key over its present revision."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody is at it, or this fold lags. Look again after a lease, unless the fold has brought news by then."""


@dataclass(frozen=True, slots=True)
class AskClaim:
    """The order was accepted once. Ask whether the queue has it still. If not, and nothing came of it, claim the key anew."""

    revision: int


def judge(claim: Claim | None, at: int, *, done: int, position: int, waited: bool) -> Take | Wait | AskClaim:
    """Decide about a key that is wanted, that nobody is known to be at, and whose claim is taken.

    Args:
        at: revision of the claim.
        done: highest revision under which a fact about the key was folded: an order up to it is spent.
        position: last folded log position.
        waited: this very claim was found before, and a whole lease has passed since.
    """
    match claim:
        case None | Collecting():
            # A collector looks again before it removes anything, and finds that a flight needs it.
            return Take()
        case Held(leased=True):
            return Take() if at <= done else AskClaim(at)
        case Held():
            return Take() if waited else Wait()
        case Ordered(revision=revision):
            return Take() if revision <= done else AskClaim(revision)
        case Settled(at=settled) if settled > position and not waited:
            return Wait()  # the fact lies ahead of this fold
        case Settled():
            return Take()

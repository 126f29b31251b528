"""How one coordinator pursues one wanted key: claim it, order the work, say so. Without I/O.

A pursuit is a generator: it yields what is to be done next and is sent the outcome. `handlers.py` drives it against the
bus; the property tests drive the very same steps in random interleavings and kill it between any two of them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count

import msgspec

from schemas import routing
from schemas.events import BlobClaimed, Event, LayerClaimed
from schemas.orders import FetchBlob, Order, UnpackLayer
from services.coordinator import claim
from services.coordinator.board import Board
from services.coordinator.claim import HOLD, ORDERED, AskClaim, Claim, Held, Take, Wait
from services.coordinator.intents import Want


@dataclass(frozen=True, slots=True)
class Put:
    """Compare-and-set a claim. Outcome: the new revision, or None where somebody else was first."""

    key: str
    value: Claim
    expected: int
    ttl: float


@dataclass(frozen=True, slots=True)
class Get:
    """Read a claim. Outcome: (claim or None for what is no claim, revision), or None where the key is absent."""

    key: str


@dataclass(frozen=True, slots=True)
class Send:
    """Put an order into the work queue; being there already is as good."""

    order: Order


@dataclass(frozen=True, slots=True)
class LookAtClaim:
    """Is an order queued or running? Outcome: 1; or None where it is not, once the fold has read all that was stored by then:
    facts are stored before their order leaves the queue, so what came of it is known."""

    subject: str


@dataclass(frozen=True, slots=True)
class Announce:
    """After an order was accepted: tell the log, where the key has a story of its own."""

    event: Event
    message_id: str = ""
    """If not the usual one."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for somebody's lease to run out. Outcome: 1 after the whole time, None when the fold brought news before."""

    seconds: float


Step = Put | Get | Send | LookAtClaim | Announce | Pause
Outcome = int | tuple[Claim | None, int] | None
Pursuit = Generator[Step, Outcome, None]


class Pursuer:
    """Starts pursuits for one coordinator, and remembers which claims it won.

    Args:
        me: name of this coordinator: letters, digits, `-`, `_`.
        lease: seconds that a claim of this one is held, and that it gives to those of others.
    """

    def __init__(self, board: Board, me: str, lease: float = HOLD) -> None:
        self.board = board
        self.me = me
        self._lease = lease
        self._won: dict[str, int] = {}
        """Key → revision of the claim that is to be settled."""
        self._writes = count(1)

    def pursue(self, key: str) -> Pursuit:
        """See to it that a wanted key has an order, by whoever it may be. For a key that is not in hand."""
        expected = seen = 0
        while (want := self.board.waits.want(key)) is not None:
            held = Held(by=self.me, nonce=f"{self.me}.{next(self._writes)}", leased=True)
            revision = yield Put(key, held, expected, ORDERED)
            if isinstance(revision, int):
                yield from self._order(key, revision)
                return
            expected = 0
            found = yield Get(key)
            if not isinstance(found, tuple):
                continue
            present, at = found
            match self._judge(want, present, at, waited=at == seen):
                case Take():
                    expected = at
                case Wait():
                    slept = yield Pause(self._lease)
                    seen = at if slept else 0
                case AskClaim(revision=ordered):
                    order = msgspec.structs.replace(want.order, revision=ordered)
                    if (yield LookAtClaim(routing.order_subject(order))):
                        self._won[key] = at
                        yield from self._say_again(order)
                        return
                    expected = at

    def _say_again(self, order: Order) -> Pursuit:
        """The log may lack that an order is out: its holder may have died before it could say so, and a failure of it counts
        only once that is said. Should the log have it, it gets a second copy, which changes nothing."""
        if (event := self._claimed(order)) is not None:
            yield Announce(event, f"{routing.event_id(event)}.{self.me}")

    def holds(self, key: str) -> bool:
        """This coordinator won the claim and the fold has not settled it."""
        return key in self._won

    def settle(self, key: str, at: int) -> Put | None:
        """What to write now that the fold has settled a key: only the winner tidies its claim. Nobody waits for that."""
        revision = self._won.pop(key, 0)
        return self._tidy(key, revision, at) if revision else None

    def _tidy(self, key: str, revision: int, at: int) -> Put:
        return Put(key, claim.Settled(by=self.me, at=at), revision, claim.SETTLED)

    def _judge(self, want: Want, present: Claim | None, at: int, *, waited: bool) -> Take | Wait | AskClaim:
        position = self.board.position
        return claim.judge(present, at, done=want.done, position=position, waited=waited)

    def _order(self, key: str, revision: int) -> Pursuit:
        """The claim is ours: give its order, unless the key was settled or left while it was being written."""
        want = self.board.waits.want(key)
        if want is None:
            yield self._tidy(key, revision, self.board.position)
            return
        self._won[key] = revision
        order = msgspec.structs.replace(want.order, revision=revision)
        yield Send(order)
        if (event := self._claimed(order)) is not None:
            yield Announce(event)

    def _claimed(self, order: Order) -> Event | None:
        match order:
            case FetchBlob():
                return BlobClaimed(store=order.store, digest=order.blob.digest, revision=order.revision, holder=self.me)
            case UnpackLayer():
                return LayerClaimed(store=order.store, chain_id=order.chain_id, revision=order.revision, holder=self.me)
            case _:
                return None

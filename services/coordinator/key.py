"""What the fold knows of one claim key: whether it is settled, who is at it, and which flights wait for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.events import BlobFailed, LayerFailed
from schemas.orders import FetchBlob, Order, UnpackLayer
from services.coordinator.flight import Flight
from services.coordinator.slow import Place, burden, place_of

NOBODY: Mapping[Place, int] = {}
"""No source was named slow."""


class Key:
    """What is known of one claim key, and which flights wait for it."""

    __slots__ = (
        *("claimed", "claimed_at", "done", "early", "holder", "name", "order", "place", "settled", "since", "slow", "store"),
        *("touched", "waiters"),
    )

    def __init__(self, name: str, store: str) -> None:
        self.name = name
        self.store = store
        self.settled = 0
        """Position of the fact that settled it; 0: unsettled."""
        self.since = 0
        self.claimed = 0
        """Revision of the newest claim whose order is known to have been queued."""
        self.claimed_at = 0
        self.done = 0
        self.early: BlobFailed | LayerFailed | None = None
        """A failure under a revision that the log has not seen claimed yet; it counts once it has."""
        self.holder = ""
        self.order: Order | None = None
        """What was last wanted for it, while it is unsettled."""
        self.waiters: dict[str, Flight] = {}
        self.place: Place | None = None
        """Where the order that is out has it from, as far as the log tells."""
        self.slow: Mapping[Place, int] = NOBODY
        """How often which source was named slow since somebody began to wait."""
        self.touched = 0
        """Position at which it was last left without waiters."""

    @property
    def ordered(self) -> bool:
        """The log says that an order is queued or running."""
        return self.claimed > self.done

    @property
    def chosen(self) -> Flight:
        """Whose order is given: of those who wait, the first one whose source was named slow least."""
        if not self.slow:
            return next(iter(self.waiters.values()))
        return min(self.waiters.values(), key=lambda flight: burden(place_of(flight.order_for(self.name)), self.slow))

    @property
    def places(self) -> set[Place]:
        """Where those who wait could have it from."""
        return {place_of(flight.order_for(self.name)) for flight in self.waiters.values()}

    @property
    def idle(self) -> bool:
        """Nobody waits for it and nobody is at it: what is known of it is a cache."""
        return not self.waiters and not self.ordered


def concerned(event: BlobFailed | LayerFailed, flight: Flight, key: str) -> bool:
    """Whether a failure of a key is also this flight's, which waits for it."""
    if event.concerns == "nobody":
        return False
    if event.concerns == "key":
        return True
    order = flight.work[key]
    if isinstance(event, LayerFailed):
        return isinstance(order, UnpackLayer) and order.blob.digest == event.blob
    assert isinstance(order, FetchBlob), "a blob key is settled by a fetch"
    here, there = order.source, event.source
    same_place = (here.registry, here.repository) == (there.registry, there.repository)
    return same_place and (event.concerns == "source" or here.credential == there.credential)

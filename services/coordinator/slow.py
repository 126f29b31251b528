"""Sources that do not deliver: what several flights wait for need not come from the one whose flight came first. Pure.

Whoever makes an image chooses the digests in it, and diffIDs too. So a hostile or sick registry may be the one that a shared
blob is ordered from, or a blob that never comes may stand for a layer that others have at hand. The fold knows which waiters
could bring it from elsewhere; when what is in hand brings next to nothing, a coordinator says so (`source.slow`, which concerns
nobody), and the fold has it ordered from the source that was named slow least. What has come stays, and is continued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.events import BlobFailed, Event, LayerFailed, Source
from schemas.oci import ChainID, Digest
from schemas.orders import FetchBlob, Order, UnpackLayer

SLOW = "source.slow"
"""Code of an attempt that was given up since its source brings next to nothing and another one is at hand."""

_MOST_ROUNDS = 6

Place = tuple[str, str]
"""Where the bytes of some work come from: registry and repository; for a layer nothing, and the digest of its blob."""


@dataclass(frozen=True, slots=True)
class Contest:
    """An order that is out, while others who wait for the same could have it from elsewhere."""

    order: Order
    """With the claim's revision. Its source may be another waiter's."""
    place: Place
    """What it is being had from."""
    blob: Digest
    """Whose progress shows whether anything comes."""
    rounds: int
    """How often all of the sources have been named slow."""

    @property
    def patience(self) -> float:
        """How many times longer than at first the source may take: if all are slow, changing between them helps nobody."""
        return float(2 ** min(self.rounds, _MOST_ROUNDS))


def place_of(order: Order) -> Place:
    """Where an order's bytes come from."""
    match order:
        case FetchBlob(source=source):
            return source.registry, source.repository
        case UnpackLayer(blob=blob):
            return "", blob.digest
        case _:
            return "", ""


def place_failed(event: BlobFailed | LayerFailed) -> Place:
    """Where the bytes of a failed attempt were to come from."""
    return (event.source.registry, event.source.repository) if isinstance(event, BlobFailed) else ("", event.blob)


def burden(place: Place, slow: Mapping[Place, int]) -> tuple[int, int]:
    """How little is to be expected of a place: how often it was named slow, and then how often its registry was, so that one
    with a hundred repositories is not tried a hundred times."""
    return slow.get(place, 0), sum(times for each, times in slow.items() if each[0] and each[0] == place[0])


def rounds(places: Iterable[Place], slow: Mapping[Place, int]) -> int:
    """How often all of these were named slow."""
    return min((slow.get(place, 0) for place in places), default=0)


def said_slow(contest: Contest) -> Event:
    """The fact that an attempt is given up since its source does not deliver."""
    order, message = contest.order, "it brings next to nothing, and others who wait for it have another source"
    match order:
        case FetchBlob():
            return BlobFailed(
                store=order.store, digest=order.blob.digest, revision=order.revision,
                source=Source(registry=contest.place[0], repository=contest.place[1]),
                concerns="nobody", code=SLOW, message=f"{'/'.join(contest.place)}: {message}",
            )  # fmt: skip
        case UnpackLayer():
            return LayerFailed(
                store=order.store, chain_id=ChainID(order.chain_id), blob=contest.blob, revision=order.revision,
                concerns="nobody", code=SLOW, message=f"{contest.blob}: {message}",
            )  # fmt: skip
    raise AssertionError(f"only blobs and layers come from somewhere, not {order!r}")

"""One shared pull in flight: what it waits for and how it ends. Pure state, changed only by the board."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

from schemas import subjects
from schemas.events import PullCompleted, PullFailed, PullRequested, PullResolved, ResolvedLayer, Sharing
from schemas.orders import FetchBlob, Order, RecordImage, ResolveReference, UnpackLayer
from services.coordinator.requesters import Requesters

Ending = PullCompleted | PullFailed

Piece = tuple[ResolvedLayer, str, str]
"""A layer, the claim key of its blob, that of its snapshot."""

_ASKED = tuple(name for name in subjects.FLIGHT_FIELDS if name in ResolveReference.__struct_fields__)
"""What of a request its resolving must know: the fields that both have."""


class FlightState(Enum):
    RESOLVING = "resolving"
    WORKING = "working"
    RECORDING = "recording"
    ENDED = "ended"


class Flight:
    """Everything asked for under one flight key while it is in flight."""

    __slots__ = (
        "again",
        "ended_by",
        "ending",
        "how",
        "last_request",
        "late",
        "missing",
        "name",
        "opened",
        "record_key",
        "recorded",
        "reference",
        "request",
        "requesters",
        "requests",
        "resolve_key",
        "resolved",
        "reused",
        "state",
        "store",
        "unpack",
        "work",
    )

    def __init__(self, name: str, request: PullRequested, opened: int) -> None:
        self.name = name
        self.request = request
        """What is asked for, with the reference and the platform in their normal form."""
        self.store = store = request.store
        self.reference = request.reference
        self.unpack = request.unpack
        self.opened = opened
        self.resolve_key = subjects.resolve_key(store, name, opened)
        self.record_key = subjects.record_key(store, name, opened)
        self.state = FlightState.RESOLVING
        self.requests = 0
        self.requesters = Requesters()
        self.last_request = opened
        self.late = 0
        """Requests that came after the end and before the ending was folded: they open the next flight."""
        self.resolved: PullResolved | None = None
        self.recorded = False
        self.again = False
        """Something it needs was lost while its image was being listed: what comes of that does not count."""
        self.work: dict[str, Order] = {}
        """Claim key → the order that settles it, once the reference is resolved."""
        self.missing: set[str] = set()
        """Claim keys that must settle before the flight can go on."""
        self.how: dict[str, str] = {}
        """Claim key → how its work was shared: `reused`, `waited` or `ours`."""
        self.reused: set[str] = set()
        """Keys of ours for which the worker found everything in place."""
        self.ending: Ending | None = None
        self.ended_by = ""
        """Claim key whose settling ended the flight."""

    def reopened(self, at: int, covers: int) -> Flight:
        """The next flight of the same key, for the requests that came too late for this one: its ending does not cover them."""
        flight = Flight(self.name, self.request, at)
        flight.requests = max(1, self.late)
        flight.requesters = self.requesters.since(covers)
        flight.last_request = self.last_request
        return flight

    # -- the orders it needs -------------------------------------------------------------------------------------------

    def resolve_order(self) -> ResolveReference:
        asked: dict[str, Any] = {name: getattr(self.request, name) for name in _ASKED}
        return ResolveReference(reference=self.reference, flight=self.name, opened=self.opened, **asked)

    def record_order(self) -> RecordImage:
        resolved = self._resolved()
        return RecordImage(
            store=self.store,
            reference=self.reference,
            flight=self.name,
            opened=self.opened,
            platform=resolved.platform,
            digest=resolved.digest,
            manifest=resolved.manifest,
            config=resolved.config,
            chain_ids=tuple(layer.chain_id for layer in resolved.layers if self.unpack and layer.chain_id),
            source=resolved.source,
        )

    def adopt(self, resolved: PullResolved, layers: Iterable[Piece]) -> Iterator[str]:
        """Take over what the reference resolved to, and yield the claim key of each piece of work: every blob and, unless the
        requester declined, every snapshot; bottom first. A blob that occurs twice comes once.
        """
        self.resolved = resolved
        self.recorded = resolved.recorded
        self.state = FlightState.WORKING
        parent = ""
        for layer, blob_key, layer_key in layers:
            if blob_key not in self.work:
                self.work[blob_key] = FetchBlob(store=self.store, blob=layer.blob, source=resolved.source)
                yield blob_key
            if self.unpack and layer_key:
                self.work[layer_key] = self._unpack_order(layer, parent)
                parent = layer.chain_id
                yield layer_key

    def order_for(self, key: str) -> Order:
        """The order that would settle a claim key, from this flight's point of view (its source, its blob)."""
        if key == self.resolve_key:
            return self.resolve_order()
        if key == self.record_key:
            return self.record_order()
        return self.work[key]

    def _unpack_order(self, layer: ResolvedLayer, parent: str) -> UnpackLayer:
        return UnpackLayer(
            store=self.store,
            chain_id=layer.chain_id,
            diff_id=layer.diff_id,
            blob=layer.blob,
            parent=parent,  # type: ignore[arg-type]  # a ChainID, or empty for the lowest layer
        )

    def _resolved(self) -> PullResolved:
        assert self.resolved is not None, "asked for layers before the reference was resolved"
        return self.resolved

    # -- how it ends ---------------------------------------------------------------------------------------------------

    def complete(self, position: int, by: str) -> PullCompleted:
        """End well at a log position; answers all requests up to and including it."""
        resolved = self._resolved()
        chains = [layer.chain_id for layer in resolved.layers if self.unpack and layer.chain_id]
        ending = PullCompleted(
            store=self.store,
            reference=self.reference,
            flight=self.name,
            opened=self.opened,
            covers=position + 1,
            platform=resolved.platform,
            digest=resolved.digest,
            manifest=resolved.manifest.digest,
            image_id=resolved.config.digest,
            chain_id=chains[-1] if chains else "",  # type: ignore[arg-type]  # empty: nothing was unpacked
            layers=len(resolved.layers),
            size=sum(layer.blob.size for layer in resolved.layers),
            sharing=self._sharing(),
        )
        self._end(ending, by)
        return ending

    def fail(self, position: int, by: str, *, code: str, message: str) -> PullFailed:
        """End badly at a log position; answers all requests up to and including it."""
        ending = self.failure(position, code=code, message=message)
        self._end(ending, by)
        return ending

    def failure(self, position: int, *, code: str, message: str) -> PullFailed:
        """How it would end badly at a log position."""
        return PullFailed(
            store=self.store,
            reference=self.reference,
            flight=self.name,
            opened=self.opened,
            covers=position + 1,
            code=code,
            message=message,
            requests=self.requests,
        )

    def _end(self, ending: Ending, by: str) -> None:
        self.state = FlightState.ENDED
        self.ending = ending
        self.ended_by = by

    def _sharing(self) -> Sharing:
        count = dict.fromkeys(Sharing.__struct_fields__, 0)
        count["requests"] = self.requests
        for key, order in self.work.items():
            how = self.how.get(key, "reused")
            if how == "ours":
                how = "reused" if key in self.reused else "done"
            if isinstance(order, FetchBlob):
                name = "fetched" if how == "done" else how
                count[name] += 1
                count[f"{name}_bytes"] += order.blob.size
            else:
                count["unpacked" if how == "done" else f"unpack_{how}"] += 1
        return Sharing(**count)


def pieces(resolved: PullResolved) -> list[Piece]:
    """The layers of a resolved image with the claim keys of their blobs and snapshots; an empty one where it has no ChainID."""
    store = resolved.store
    return [
        (
            layer,
            subjects.blob_key(store, layer.blob.digest),
            subjects.layer_key(store, layer.chain_id) if layer.chain_id else "",
        )
        for layer in resolved.layers
    ]

"""Message → subject, message id, claim key: which of the names in `subjects.py` each message has."""

from __future__ import annotations

from schemas import subjects
from schemas.events import (
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Event,
    LayerClaimed,
    LayerFailed,
    LayerLost,
    LayerUnpacked,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullRecorded,
    PullRequested,
    PullResolved,
    PullUnrecorded,
    PullUnresolved,
    StoreOpened,
)
from schemas.orders import FetchBlob, Order, RecordImage, ResolveReference, UnpackLayer
from schemas.progress import BlobProgress, LayerProgress, ProgressMessage, PullProgress


def event_subject(event: Event) -> str:
    """Subject of any event. A request without a computed flight goes under the bare `pull.requested`."""
    kind = _type(event)
    match event:
        case PullRequested():
            return kind
        case (
            PullCompleted()
            | PullFailed()
            | PullCancelled()
            | PullResolved()
            | PullUnresolved()
            | PullRecorded()
            | PullUnrecorded()
        ):
            return subjects.pull_subject(kind.removeprefix("pull."), event.store, event.reference, event.flight)
        case BlobClaimed() | BlobFetched() | BlobFailed() | BlobLost():
            return f"{kind}.{event.store}.{subjects.digest_token(event.digest)}"
        case LayerClaimed() | LayerUnpacked() | LayerFailed() | LayerLost():
            return f"{kind}.{event.store}.{subjects.digest_token(event.chain_id)}"
        case StoreOpened():
            return f"{kind}.{event.store}"
    raise TypeError(f"{kind} has no subject")


def event_id(event: Event) -> str | None:
    """Message id under which the log keeps one copy of an event, whoever says it and however often. None: always a new event.

    An ending's id is derived from the flight and the position that opened it: a flight ends once.
    """
    kind = _type(event)
    match event:
        case PullRequested() | BlobLost() | LayerLost():
            return None
        case PullCompleted() | PullFailed():
            return f"pull.ended.{event.store}.{event.flight}.{event.opened}"
        case PullCancelled():
            return subjects.withdrawal_id(event.request, event.secret)
        case PullResolved() | PullUnresolved() | PullRecorded() | PullUnrecorded():
            return f"{kind}.{event.store}.{event.flight}.{event.opened}.{event.revision}"
        case StoreOpened():
            return f"{kind}.{event.store}.{event.incarnation}"
        case BlobClaimed() | BlobFetched() | BlobFailed() | LayerClaimed() | LayerUnpacked() | LayerFailed():
            return f"{event_subject(event)}.{event.revision}"
    raise TypeError(f"{kind} has no message id")


def order_subject(order: Order) -> str:
    """Subject of an order; the queue keeps one message a subject, so one order a claim's revision."""
    match order:
        case FetchBlob():
            what = subjects.digest_token(order.blob.digest)
        case UnpackLayer():
            what = subjects.digest_token(order.chain_id)
        case ResolveReference() | RecordImage():
            what = order.flight
        case _:
            raise TypeError(f"{_type(order)} has no subject")
    return f"{_type(order)}.{order.store}.{what}.{order.revision}"


def failure_subject(order: Order) -> str | None:
    """Subject of the fact that an order has failed; None for orders of a flight, whose failures end it."""
    match order:
        case FetchBlob():
            return f"blob.failed.{order.store}.{subjects.digest_token(order.blob.digest)}"
        case UnpackLayer():
            return f"layer.failed.{order.store}.{subjects.digest_token(order.chain_id)}"
    return None


def claim_key(order: Order) -> str:
    """Key of the claim that justifies an order. All coordinators derive the same one from the same want."""
    match order:
        case FetchBlob():
            return subjects.blob_key(order.store, order.blob.digest)
        case UnpackLayer():
            return subjects.layer_key(order.store, order.chain_id)
        case ResolveReference():
            return subjects.resolve_key(order.store, order.flight, order.opened)
        case RecordImage():
            return subjects.record_key(order.store, order.flight, order.opened)
    raise TypeError(f"{_type(order)} has no claim")


def progress_subject(progress: ProgressMessage) -> str:
    """Subject of a progress message."""
    match progress:
        case BlobProgress(digest=name) | LayerProgress(chain_id=name):
            return f"progress.{progress.store}.{subjects.digest_token(name)}"
        case PullProgress(flight=flight):
            return f"progress.{progress.store}.{flight}"


def progress_key(progress: ProgressMessage) -> str:
    """Key of the claim behind the work that a progress message tells of."""
    match progress:
        case BlobProgress():
            return subjects.blob_key(progress.store, progress.digest)
        case LayerProgress():
            return subjects.layer_key(progress.store, progress.chain_id)
        case PullProgress():
            key = subjects.resolve_key if progress.work == "resolve" else subjects.record_key
            return key(progress.store, progress.flight, progress.opened)


def _type(message: Event | Order) -> str:
    return str(message.__struct_config__.tag)

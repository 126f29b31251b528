"""Every fact pullonce knows, one class a type.

An event is named noun.verbed, in the past: reading it says what is now true. Its `type` tag is also the first two tokens
of the subject it is stored under (see `subjects.py`). Time, message id, cause and sequence travel in headers and delivery
metadata, so a body never contradicts the log. Readers skip fields they do not know; new fields only come with a default;
a changed meaning is a new type.
"""

import msgspec

from schemas.fact import Concerns, Event, Flight, Policy, Seconds, Sequence, Source, Token
from schemas.malformed import Malformed, read
from schemas.pull_facts import (
    CONTENT_MISSING,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullRecorded,
    PullRequested,
    PullResolved,
    PullUnrecorded,
    PullUnresolved,
    ResolvedLayer,
    Sharing,
)
from schemas.work_facts import (
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    BlobLost,
    LayerClaimed,
    LayerFailed,
    LayerLost,
    LayerUnpacked,
    StoreOpened,
)

__all__ = [
    "CONTENT_MISSING",
    "EVENTS",
    "BlobClaimed",
    "BlobFailed",
    "BlobFetched",
    "BlobLost",
    "Concerns",
    "Event",
    "Flight",
    "LayerClaimed",
    "LayerFailed",
    "LayerLost",
    "LayerUnpacked",
    "Malformed",
    "Policy",
    "PullCancelled",
    "PullCompleted",
    "PullFailed",
    "PullRecorded",
    "PullRequested",
    "PullResolved",
    "PullUnrecorded",
    "PullUnresolved",
    "ResolvedLayer",
    "Seconds",
    "Sequence",
    "Sharing",
    "Source",
    "StoreOpened",
    "Token",
    "decode",
]

EVENTS: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        PullRequested, PullResolved, PullUnresolved, PullRecorded, PullUnrecorded, PullCompleted, PullFailed, PullCancelled,
        BlobClaimed, BlobFetched, BlobFailed, BlobLost,
        LayerClaimed, LayerUnpacked, LayerFailed, LayerLost,
        StoreOpened,
    )
}  # fmt: skip
"""Every event class by its type."""


_decoders = {kind: msgspec.json.Decoder(cls) for kind, cls in EVENTS.items()}


MAX_REQUEST = 16 * 1024
"""Bytes of a request or a withdrawal: several times what its fields can take. Every client may publish them, with further
fields."""

_OF_CLIENTS = ("pull.requested", "pull.cancelled")


def oversized(subject: str, body: bytes) -> bool:
    """What a client published is larger than anything that it may say."""
    return len(body) > MAX_REQUEST and ".".join(subject.split(".", 2)[:2]) in _OF_CLIENTS


def decode(subject: str, body: bytes) -> Event:
    """Read the event stored under a subject.

    The subject names the type; a body may leave its `type` out, so that `{"reference": "redis"}` is a request. What a subject
    says of the store holds: on a bus with permissions, whoever speaks for one store only is held to subjects.

    Raises:
        Malformed: the subject names no event type, or the body does not fit it.
    """
    second = subject.find(".", subject.find(".") + 1)
    kind = subject[:second] if second >= 0 else subject
    decoder = _decoders.get(kind)
    if decoder is None:
        raise Malformed(f"no event type is called {kind!r}")
    if len(body) > MAX_REQUEST and oversized(subject, body):
        raise Malformed(f"a {kind} of {len(body)} bytes; it may have {MAX_REQUEST}")
    event = read(decoder, body, kind)
    if second >= 0:
        third = subject.find(".", second + 1)
        store = subject[second + 1 : third] if third >= 0 else subject[second + 1 :]
        if event.store != store:
            raise Malformed(f"its subject is of the store {store!r}, its body of {event.store!r}")
    return event

"""A message of the log → the row in which it is staged for the fold. Pure.

The tables are made from such rows by SQL alone, whether they come one batch at a time or all at once. What SQL cannot know,
the flight that a request joins, is added here.
"""

from functools import lru_cache

import msgspec
from msgspec import Struct

from pullonce.errors import PlatformInvalid, ReferenceInvalid
from pullonce.identity import Identity, identify
from schemas import subjects
from schemas.events import EVENTS, Event, PullRequested

MALFORMED = "malformed"
"""The kind of what is no event."""

Staged = tuple[int, int, str, str]
"""Sequence; microseconds since the epoch; type of the event; its body, as JSON."""


class _Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request as it is staged: in normal form, with its flight."""

    store: str
    reference: str
    platform: str
    credential: str
    policy: str
    snapshots: bool
    requester: str
    flight: str


class _Malformed(Struct, frozen=True):
    subject: str
    reason: str


_encoder = msgspec.json.Encoder()
_kinds: dict[type[Event], str] = {cls: kind for kind, cls in EVENTS.items()}


def stage(sequence: int, time: float, event: Event | None, subject: str = "", reason: str = "") -> Staged:
    """Stage one message.

    Args:
        time: seconds since the epoch.
        event: None for what is no event; then `subject` and `reason` say more.
    """
    micros = round(time * 1e6)
    if event is None:
        return sequence, micros, MALFORMED, _encode(_Malformed(subject, reason))
    if type(event) is PullRequested:
        return sequence, micros, "pull.requested", _encode(_identified(event))
    return sequence, micros, _kinds[type(event)], _encode(event)


def _encode(body: Struct) -> str:
    return _encoder.encode(body).decode()


def line(staged: Staged) -> str:
    """The same as a line of NDJSON."""
    return f'{{"sequence":{staged[0]},"micros":{staged[1]},"kind":"{staged[2]}","body":{staged[3]}}}\n'


def _identified(event: PullRequested) -> _Request:
    found = _identity(event.reference, event.store, event.platform, event.credential, event.policy, event.unpack)
    return _Request(
        store=event.store,
        reference=found.reference,
        platform=found.platform,
        credential=event.credential,
        policy=event.policy,
        snapshots=event.unpack,
        requester=event.requester,
        flight=found.flight,
    )


@lru_cache(maxsize=10_000)
def _identity(reference: str, store: str, platform: str, credential: str, policy: str, unpack: bool) -> Identity:
    """As the coordinator sees it. What it refuses has a flight of its own, under the words as they were given."""
    about = {"store": store, "platform": platform, "credential": credential, "policy": policy}
    try:
        return identify(reference, **about, unpack=unpack)
    except (ReferenceInvalid, PlatformInvalid):
        return Identity(reference, platform, subjects.flight_of(reference=reference, **about, unpack=unpack))

"""A message of the log → the row in which it is staged for the fold. Pure.

The tables are made from such rows by SQL alone, whether they come one batch at a time or all at once. What SQL cannot know,
the flight that a request joins, is added here.
"""

import msgspec
from msgspec import Struct

from pullonce.errors import PlatformInvalid, ReferenceInvalid
from pullonce.pulling.identity import Identity, flight_fields, identify_request
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
    door: str
    flight: str


class _Malformed(Struct, frozen=True):
    subject: str
    reason: str


_encode = msgspec.json.Encoder().encode
_kinds: dict[type[Event], str] = {cls: kind for kind, cls in EVENTS.items()}
_kinds_in_lines: dict[type[Event], bytes] = {cls: kind.encode() for kind, cls in EVENTS.items()}


def stage(sequence: int, time: float, event: Event | None, subject: str = "", reason: str = "") -> Staged:
    """Stage one message.

    Args:
        time: seconds since the epoch.
        event: None for what is no event; then `subject` and `reason` say more.
    """
    kind = MALFORMED if event is None else _kinds[type(event)]
    return sequence, round(time * 1e6), kind, _body(event, subject, reason).decode()


def line(sequence: int, time: float, event: Event | None, subject: str = "", reason: str = "") -> bytes:
    """The same as a line of NDJSON."""
    kind = b"malformed" if event is None else _kinds_in_lines[type(event)]
    body = _body(event, subject, reason)
    return b'{"sequence":%d,"micros":%d,"kind":"%b","body":%b}\n' % (sequence, round(time * 1e6), kind, body)


def _body(event: Event | None, subject: str, reason: str) -> bytes:
    if event is None:
        return _encode(_Malformed(subject, reason))
    return _encode(_identified(event) if type(event) is PullRequested else event)


def _identified(event: PullRequested) -> _Request:
    found = _identity(event)
    return _Request(
        store=event.store,
        reference=found.reference,
        platform=found.platform,
        credential=event.credential,
        policy=event.policy,
        snapshots=event.unpack,
        requester=event.requester,
        door=event.door,
        flight=found.flight,
    )


def _identity(event: PullRequested) -> Identity:
    """As the coordinator sees it. What it refuses has a flight of its own, under the words as they were given."""
    try:
        return identify_request(event)
    except (ReferenceInvalid, PlatformInvalid):
        return Identity(event.reference, event.platform, subjects.flight_of(event.reference, flight_fields(event)))

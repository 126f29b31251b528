"""The low-water mark: where a fold of the log may begin, with what it must know of what lies before. Pure.

Before the mark no flight was opened that is still in flight. Three things that lie before it matter all the same:

- Flights that were in flight at the mark have ended since, and between the two requests joined them. A fold from the mark
  would take those for the first of a new flight; so it is told which position opened each, and what its ending covers.
- Orders that were out at the mark. A failure counts only under the newest revision that was claimed for its key.
- In which incarnation each store was served: the next one that is announced may be a new one.

What else a board knows of older keys is a cache. Whatever it decides about a flight that was opened after the mark follows from
events after the mark: what the disk held was looked at then.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from schemas.malformed import Malformed, read


class Mark(Struct, frozen=True, omit_defaults=True):
    """As it is written down, in JSON. Read by later versions too: new fields only come with a default."""

    position: int = 0
    """A fold begins behind it."""
    seen: int = 0
    """The log reached at least to here when the mark was made: every flight of `flights` has ended by then."""
    log: str = ""
    """When the log was made, as the server says: positions of another log mean nothing."""
    flights: dict[str, tuple[int, int]] = {}
    """Flight → the position that opened it and its `covers`."""
    orders: dict[str, int] = {}
    """Claim key → revision of the newest claim whose order was out."""
    incarnations: dict[str, str] = {}
    """Store → incarnation."""


_decoder = msgspec.json.Decoder(Mark)


def encode(mark: Mark) -> bytes:
    return msgspec.json.encode(mark)


def decode(value: bytes) -> Mark | None:
    """Read a mark; None for what is none: then the log is read from its beginning."""
    try:
        return read(_decoder, value, "mark")
    except Malformed:
        return None


def usable(mark: Mark, *, log: str, last: int) -> bool:
    """Whether a fold of this log may begin there.

    Args:
        log: when the log was made.
        last: its last position. One that ends before what was seen was restored, or lost its tail.
    """
    return mark.log == log and mark.position <= mark.seen <= last

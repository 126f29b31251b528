"""What all facts are made of: their base, and the words that several of them use."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

# `(?!\n)$`: Python's `$` also matches before a newline at the end, and a newline in a subject would end the command line
# of the NATS protocol; JSON Schema's dialect reads the pattern the same way.
Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?!\n)$")]
"""One subject token chosen by people: the name of a store, a credential or a holder."""

Flight = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}(?!\n)$")]
"""Short hash of a flight key; see `subjects.flight_of`."""

Sequence = Annotated[int, Meta(ge=0)]
"""A position in the log: the stream sequence of an event. 0 lies before the first."""

Seconds = dict[str, float]
"""How long each step of some work took, in the order in which the steps came: step → seconds. They follow one another, so
the sum is what the worker spent on it, and the work ended when its event was stored. Steps may be added at any time."""

Policy = Literal["always", "if-not-present"]
"""`always` asks the registry once a flight what the tag is now; `if-not-present` is content with a complete local image."""

Concerns = Literal["key", "source", "credential", "nobody"]
"""Whom a failure concerns: everybody who waits for the key (`key`: the disk is full); those who wait for it from the same
source (`source`: this repository has no such blob; for a layer, those who unpack it from the same blob); those of them
who use the same credential (`credential`); or nobody, an attempt that came to nothing and may be made again (`nobody`)."""


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Something that happened. Immutable, and true for ever."""

    store: Token = "default"


class Source(Struct, frozen=True, omit_defaults=True):
    """Where a blob is fetched from: the repository, and the name of the credential that opens it (never the secret)."""

    registry: str
    repository: str
    credential: str = ""

"""What a server says, by its answer, of whether somebody may have something. Pure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from schemas.events import Source

Kind = Literal["manifests", "blobs"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one answer says.

    Attributes:
        source: what was asked for, under the name of its registry.
        locator: tag or digest.
        by_mirror: not the registry itself says so.
        given: whether it was given, or refused.
        secret: whether a secret was shown for it.
    """

    source: Source
    kind: Kind
    locator: str
    by_mirror: bool
    given: bool
    secret: bool


Judged = Callable[[Judgement], Awaitable[None]]

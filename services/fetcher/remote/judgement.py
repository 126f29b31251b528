"""What a server says, by its answer, of whether somebody may have something. Pure."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pullonce.oci.digest import is_digest
from schemas.events import Source
from schemas.oci import Digest
from services.fetcher.documents.manifest import DOCUMENTS, kind_of

Kind = Literal["manifests", "blobs", "tags", "referrers"]


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
Delivered = Callable[[Source, Digest], Awaitable[None]]
"""Told what a registry has sent, all of it, once that is verified."""


def gives(kind: Kind, locator: str, headers: Mapping[str, str]) -> bool:
    """Whether the head of a success looks like what was asked for: a login page, or a portal, answers 200 as well."""
    if kind in ("tags", "referrers"):
        return False  # whether they are what was asked for, their bodies tell
    content_type = kind_of(headers.get("Content-Type", ""))
    if kind == "blobs":
        return content_type != "text/html"
    told = headers.get("Docker-Content-Digest", "")
    return content_type in DOCUMENTS or (is_digest(told) and (told == locator or ":" not in locator))

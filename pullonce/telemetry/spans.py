"""Spans for OpenTelemetry: what one is, and the port through which they go. Nothing of OpenTelemetry is imported here.

A span is told once it is over. Whoever makes one says the trace it belongs to as a `traceparent`, as messages carry it
(`pullonce.trace`); the ids of flights are derived, so that every coordinator knows them without asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from pullonce.errors import ReferenceInvalid
from pullonce.oci.reference import parse

Value: TypeAlias = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that took time.

    Attributes:
        own: the `traceparent` by which others know this span; empty: nobody does, and its id is drawn.
        parent: the `traceparent` it is below; empty: it begins the trace of `own`.
        begin: seconds since the epoch; so is `end`.
        links: `traceparent`s of what it belongs together with.
        error: code of what went wrong; empty: nothing.
    """

    name: str
    begin: float
    end: float
    own: str = ""
    parent: str = ""
    kind: Literal["internal", "consumer"] = "internal"
    attributes: Mapping[str, Value] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    error: str = ""
    message: str = ""


class Spans(Protocol):
    """Where spans go. What the parent's `traceparent` says is not sampled goes nowhere."""

    def add(self, span: Span) -> str:
        """Take a span; returns the `traceparent` by which others may call it their parent. Never blocks, never raises."""
        ...

    def begins(self, trace_id: str, name: str) -> bool:
        """Whether a trace that begins here is to be kept."""
        ...


def of_reference(reference: str) -> dict[str, Value]:
    """Attributes of an image, by the names of the semantic conventions for containers."""
    try:
        parsed = parse(reference)
    except ReferenceInvalid:
        return {}
    return {"container.image.name": parsed.name, **({"container.image.tags": (parsed.tag,)} if parsed.tag else {})}

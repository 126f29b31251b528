"""Spans for OpenTelemetry: what one is, and the port through which they go. Nothing of OpenTelemetry is imported here.

A span is told once it is over. Whoever makes one says the trace it belongs to as a `traceparent`, as messages carry it
(`pullonce.trace`); the ids of flights are derived, so that every coordinator knows them without asking.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Literal, Protocol, TypeAlias

from pullonce import trace
from pullonce.errors import Permanent, ReferenceInvalid, Retryable
from pullonce.oci.reference import parse
from pullonce.worker.worker import Handler
from schemas import subjects
from schemas.events import Event
from schemas.orders import Order

log = logging.getLogger(__name__)

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


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the usual variables ask for spans. Source: OpenTelemetry, Environment Variable Specification."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return not off and any(environ.get(name) for name in names)


@asynccontextmanager
async def spanning(part: str, store: str, version: str) -> AsyncIterator[Spans | None]:
    """Where the spans of this process go, for the length of the block; None where nobody asked for them.

    Args:
        part: kind of the process.
        store: the store it serves; empty where it serves all.
        version: of pullonce.
    """
    if not wanted():
        yield None
        return
    try:
        from pullonce.telemetry.otel import Exporter
    except ImportError as exc:
        log.warning("spans are asked for, and cannot be sent: %s; pip install 'pullonce[otel]'", exc)
        yield None
        return
    exporter = Exporter(part, store, version)
    try:
        yield exporter
    finally:
        await exporter.close()


def traced(spans: Spans | None, handler: Handler) -> Handler:
    """A handler whose calls are spans below the trace that the order carries, with a span for each step that its fact tells."""
    if spans is None:
        return handler

    @wraps(handler)
    async def carry_out(order: Order) -> Sequence[Event]:
        parent, begin = trace.current(), time.time()
        if not parent:
            return await handler(order)
        try:
            facts = await handler(order)
        except BaseException as exc:
            error, message = _fault(exc)
            spans.add(replace(_attempt(order, parent, begin), error=error, message=message))
            raise
        _tell(spans, _attempt(order, parent, begin), facts)
        return facts

    return carry_out


def _attempt(order: Order, parent: str, begin: float) -> Span:
    """One attempt at an order, which ends now."""
    name = str(order.__struct_config__.tag)
    return Span(name=name, begin=begin, end=time.time(), parent=parent, kind="consumer", attributes=_of_order(order))


def _fault(error: BaseException) -> tuple[str, str]:
    """Code and message."""
    if isinstance(error, Retryable | Permanent):
        return error.code, str(error)
    return type(error).__qualname__, ""


def _tell(spans: Spans, attempt: Span, facts: Sequence[Event]) -> None:
    """An attempt that came to something, and its steps below it: they follow one another up to the fact."""
    fact = facts[0] if facts else None
    own = spans.add(replace(attempt, attributes={**attempt.attributes, **_of_fact(fact)}))
    steps: dict[str, float] = getattr(fact, "seconds", {})
    at = attempt.end
    for step, seconds in reversed(steps.items()):
        since = max(attempt.begin, at - seconds)
        spans.add(Span(name=step, begin=since, end=at, parent=own))
        at = since


def of_reference(reference: str) -> dict[str, Value]:
    """Attributes of an image, by the names of the semantic conventions for containers."""
    try:
        parsed = parse(reference)
    except ReferenceInvalid:
        return {}
    return {"container.image.name": parsed.name, **({"container.image.tags": (parsed.tag,)} if parsed.tag else {})}


def _of_order(order: Order) -> dict[str, Value]:
    blob, source = getattr(order, "blob", None), getattr(order, "source", None)
    found: dict[str, Value] = {
        "messaging.system": "nats",
        "messaging.destination.name": subjects.ORDERS_STREAM,
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "pullonce.store": order.store,
        "pullonce.revision": order.revision,
        "pullonce.digest": blob.digest if blob is not None else "",
        "pullonce.chain_id": getattr(order, "chain_id", ""),
        "pullonce.flight": getattr(order, "flight", ""),
        "server.address": source.registry if source is not None else "",
        **of_reference(getattr(order, "reference", "")),
    }
    return {name: value for name, value in found.items() if value != ""}


def _of_fact(fact: Event | None) -> dict[str, Value]:
    names = {"reused": "pullonce.reused", "size": "pullonce.size", "entries": "pullonce.entries"}
    return {names[name]: getattr(fact, name) for name in names if hasattr(fact, name)}

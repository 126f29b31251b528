"""Orders as spans: a handler whose calls are told below the trace that its order carries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import wraps

from pullonce import trace
from pullonce.errors import Permanent, Retryable
from pullonce.telemetry.spans import Span, Spans, Value, of_reference
from pullonce.worker.worker import Handler
from schemas import subjects
from schemas.events import Event
from schemas.orders import Order


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

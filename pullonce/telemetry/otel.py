"""Spans by OTLP over HTTP, with the SDK of OpenTelemetry: the only module that imports it. Needs `pullonce[otel]`.

The usual variables configure it: `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
`OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`. Nothing is registered for the whole process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading

from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from pullonce.telemetry.spans import Span

_LAST_WORDS = 2.0
"""Seconds that a collector has to take what is left when a process ends."""
_KINDS = {"internal": SpanKind.INTERNAL, "consumer": SpanKind.CONSUMER}


class Exporter:
    """The port `Spans`, to a collector. Batches leave in a thread of the SDK; where none answers, spans are dropped."""

    def __init__(self, part: str, store: str, version: str) -> None:
        self._ids = _Ids()
        # What the environment says of the resource wins.
        resource = _resource(part, store, version).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("pullonce", version)

    def add(self, span: Span) -> str:
        """Take a span; returns the `traceparent` by which others may call it their parent."""
        self._ids.next = _context(span.own)
        made = self._tracer.start_span(
            span.name,
            _below(span.parent),
            _KINDS[span.kind],
            attributes=span.attributes,
            links=[Link(linked) for each in span.links if (linked := _context(each)) is not None],
            start_time=_nanoseconds(span.begin),
        )
        if span.error:
            made.set_attribute("error.type", span.error)
            made.set_status(Status(StatusCode.ERROR, span.message or span.error))
        made.end(_nanoseconds(max(span.begin, span.end)))
        context = made.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def begins(self, trace_id: str, name: str) -> bool:
        """What the sampler of the environment says."""
        decision = self._provider.sampler.should_sample(None, int(trace_id, 16), name).decision
        return decision is Decision.RECORD_AND_SAMPLE

    async def close(self) -> None:
        """Send what is left, for two seconds at most."""
        # A thread that may be left behind: a collector that does not answer shall not keep the process.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _LAST_WORDS)


class _Ids(IdGenerator):
    """Ids that were derived, where a span has its own; drawn ones otherwise."""

    def __init__(self) -> None:
        self.next: SpanContext | None = None
        self._drawn = RandomIdGenerator()

    def generate_span_id(self) -> int:
        return self.next.span_id if self.next is not None else self._drawn.generate_span_id()

    def generate_trace_id(self) -> int:
        return self.next.trace_id if self.next is not None else self._drawn.generate_trace_id()


def _resource(part: str, store: str, version: str) -> Resource:
    told = {
        "service.namespace": "pullonce",
        "service.name": f"pullonce-{part}",
        "service.version": version,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        "pullonce.part": part,
    }
    return Resource.create({**told, **({"pullonce.store": store} if store else {})})


def _context(traceparent: str) -> SpanContext | None:
    """What a `traceparent` names; None for an empty one. Source: W3C Trace Context, section 3.2."""
    if not traceparent:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _below(traceparent: str) -> Context:
    """The context of a parent, or an empty one: never whatever this process may have of its own."""
    parent = _context(traceparent)
    return Context() if parent is None else api.set_span_in_context(NonRecordingSpan(parent), Context())


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)

"""A collector of OTLP over HTTP on a free port of the loopback, that keeps the spans it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent


@dataclass(frozen=True)
class Got:
    """A span as it arrived; ids are hexadecimal, times seconds since the epoch."""

    name: str
    trace: str
    id: str
    parent: str
    kind: str
    begin: float
    end: float
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace and span."""
    failed: bool
    message: str
    resource: dict[str, Any]


@dataclass
class Collector:
    """What has arrived so far."""

    url: str
    spans: list[Got] = field(default_factory=list)

    def named(self, name: str) -> list[Got]:
        """The spans of one name."""
        return [each for each in self.spans if each.name == name]


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A collector for the length of the block, in this event loop."""
    runner = web.AppRunner(web.Application(client_max_size=1 << 26))
    collecting = Collector("")

    async def take(request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            about = _values(resource.resource.attributes)
            collecting.spans += [_got(span, about) for scope in resource.scope_spans for span in scope.spans]
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")

    runner.app.router.add_post("/v1/traces", take)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collecting.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collecting
    finally:
        await runner.cleanup()


def _got(span: Sent, resource: dict[str, Any]) -> Got:
    return Got(
        name=span.name, trace=span.trace_id.hex(), id=span.span_id.hex(), parent=span.parent_span_id.hex(),
        kind=Sent.SpanKind.Name(span.kind), begin=span.start_time_unix_nano / 1e9, end=span.end_time_unix_nano / 1e9,
        attributes=_values(span.attributes), links=tuple((each.trace_id.hex(), each.span_id.hex()) for each in span.links),
        failed=span.status.code == 2, message=span.status.message, resource=resource,
    )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    def plain(value: AnyValue) -> Any:
        kind = value.WhichOneof("value")
        return [plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))

    pairs: list[KeyValue] = list(attributes)
    return {each.key: plain(each.value) for each in pairs}

"""Where the spans of a process go: to a collector, if the environment asks for it."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pullonce.telemetry.spans import Spans

log = logging.getLogger(__name__)


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

"""`/metrics`, `/healthz` and `/readyz` of one process, where `PULLONCE_METRICS_ADDRESS` says. Three GET requests, no more.

They are answered in the event loop that does the work: a process that hangs does not call itself healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

from pullonce.config import SettingInvalid, metrics_address
from pullonce.telemetry.metrics import Meter

log = logging.getLogger(__name__)

_PATIENCE = 10.0
_LONGEST = 16 << 10
_PLAIN = "text/plain; charset=utf-8"


class Health:
    """Whether a process does its work.

    Attributes:
        ready: set once it does.
        address: where it says so: `http://host:port`; empty where it was not asked to.
    """

    def __init__(self) -> None:
        self.ready: Callable[[], bool] = lambda: False
        self.address = ""

    def details(self) -> dict[str, str | int | float]:
        """What belongs into the answer to a ping."""
        return {"metrics": f"{self.address}/metrics"} if self.address else {}


@contextlib.asynccontextmanager
async def telling(meter: Meter) -> AsyncIterator[Health]:
    """Serve a process's metrics and health for as long as the block lasts; nothing, where no address is configured.

    Raises:
        SettingInvalid: the address is none, or cannot be listened on.
    """
    health, configured = Health(), metrics_address()
    if configured is None:
        yield health
        return

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                writer.write(_answer(await _target(reader), meter, health))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, or says nothing that could be answered
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(serve, *configured, limit=_LONGEST)
    except OSError as exc:
        raise SettingInvalid(f"PULLONCE_METRICS_ADDRESS cannot be listened on: {exc.strerror or exc}") from exc
    host, port = server.sockets[0].getsockname()[:2]
    health.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    log.info("metrics are served", extra={"metrics": f"{health.address}/metrics"})
    try:
        yield health
    finally:
        server.close()


async def _target(reader: asyncio.StreamReader) -> str:
    """What a request asks for: method and path. Source: RFC 9112, section 3."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    return f"{method} {rest.partition(' ')[0].partition('?')[0]}"


def _answer(target: str, meter: Meter, health: Health) -> bytes:
    match target:
        case "GET /metrics":
            body, kind = meter.shown()
            return _response(HTTPStatus.OK, body, kind)
        case "GET /healthz":
            return _response(HTTPStatus.OK, b"ok\n", _PLAIN)
        case "GET /readyz":
            if health.ready():
                return _response(HTTPStatus.OK, b"ready\n", _PLAIN)
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, b"not ready\n", _PLAIN)
        case _ if target.startswith("GET "):
            return _response(HTTPStatus.NOT_FOUND, b"ask for /metrics, /healthz or /readyz\n", _PLAIN)
        case _:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET is answered\n", _PLAIN)


def _response(status: HTTPStatus, body: bytes, kind: str) -> bytes:
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body

"""The ledger over HTTP: the page, the questions as GET requests that answer JSON, and the air as server-sent events.

Read-only, and on loopback unless configured otherwise. What changes anything is asked over the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from pullonce.hostnames import is_named_plainly
from schemas.ledger import Answer, AskExplain, AskHistory, AskSql, AskStats, Error, Question, encode
from services.ledger.web.access import authorized, is_from_elsewhere
from services.ledger.web.assets import START, Asset, load
from services.ledger.web.watching import Viewers

_ASKED: dict[str, type[Question]] = {"history": AskHistory, "stats": AskStats, "explain": AskExplain, "sql": AskSql}

_STATUS = {"pull.unknown": 404, "sql.timeout": 504, "ledger.memory": 503, "sql.memory": 503, "sql.busy": 503, "disk.full": 503}

_HEADERS = {
    # Scripts and styles are files of ours, never part of a document: whatever an image is called, it stays a name.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}

_OPEN = frozenset(("/healthz", "/readyz"))
"""What anybody may ask, so that whoever starts and stops processes needs no secret."""

_SIGN = 15.0
"""Seconds of silence after which a stream says that it is still there; the page takes three times that for an end."""
_AGAIN = 1000
"""Milliseconds until a browser comes back after a broken stream."""


class Answers(Protocol):
    """Whoever answers questions."""

    async def answer(self, question: Question) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What is served.

    Attributes:
        parts: who is there, as JSON.
        metrics: in the text format of Prometheus, with its media type.
        state: `ready`, or why questions are not answered with what is true now.
        token: without it nobody is answered; empty: whoever is on this machine may read.
    """

    questions: Answers
    watching: Viewers
    parts: Callable[[], Awaitable[bytes]]
    metrics: Callable[[], tuple[bytes, str]]
    state: Callable[[], str] = lambda: "ready"
    token: str = ""
    assets: Mapping[str, Asset] = field(default_factory=load)


class Pages:
    """The routes."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._streams: set[asyncio.Task[object]] = set()

    def application(self) -> web.Application:
        """All routes as one application."""
        application = web.Application(middlewares=[self._guard])
        for path, handler in {
            "/": self._start, "/{name:[a-z-]+\\.[a-z]+}": self._asset,
            "/healthz": self._healthy, "/readyz": self._ready, "/metrics": self._metrics,
            "/api/air": self._air, "/api/live": self._live, "/api/parts": self._parts, "/api/{question}": self._ask,
        }.items():  # fmt: skip
            application.router.add_get(path, handler)
        application.on_response_prepare.append(_harden)
        application.on_shutdown.append(self._end_streams)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _OPEN:
            return await handler(request)
        token = self._sources.token
        if token and not authorized(request.headers.get("Authorization", ""), token):
            asking = {"WWW-Authenticate": 'Basic realm="pullonce ledger: any name, and the token", charset="UTF-8"'}
            raise web.HTTPUnauthorized(headers=asking, text="the ledger's token is asked for")
        if not token and not is_named_plainly(request.host):
            raise web.HTTPForbidden(text="without a token, the ledger answers only to an address or localhost")
        if is_from_elsewhere(request.headers, request.host, page=request.path == "/"):
            raise web.HTTPForbidden(text="the ledger answers no page of another site, nor of another port of this machine")
        return await handler(request)

    # -- the page ------------------------------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.StreamResponse:
        return self._serve(request, START)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        return self._serve(request, request.match_info["name"])

    def _serve(self, request: web.Request, name: str) -> web.StreamResponse:
        asset = self._sources.assets.get(name)
        if asset is None:
            raise web.HTTPNotFound
        headers = {"ETag": f'"{asset.tag}"', "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        response = web.Response(body=asset.body, content_type=asset.kind, charset="utf-8", headers=headers)
        response.enable_compression()
        return response

    # -- questions -----------------------------------------------------------------------------------------------------

    async def _ask(self, request: web.Request) -> web.Response:
        """`/api/history?reference=redis&limit=10`: the fields of a question are the parameters."""
        kind = _ASKED.get(request.match_info["question"])
        if kind is None:
            raise web.HTTPNotFound
        try:
            question = msgspec.convert(dict(request.query), kind, strict=False)
        except msgspec.ValidationError as exc:
            return _json(Error(code="question.invalid", message=str(exc)))
        return _json(await self._sources.questions.answer(question))

    async def _parts(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._sources.parts(), content_type="application/json")

    async def _air(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._sources.watching.present(), content_type="application/json")

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """The air as server-sent events: everything first, then what changes. Source: HTML standard, section 9.2."""
        watching = self._sources.watching
        if watching.full:
            raise web.HTTPServiceUnavailable(text="too many watch already")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            async with watching.watcher() as watcher:
                await response.prepare(request)
                await response.write(b"retry: %d\n\n" % _AGAIN)
                while True:
                    message = await watcher.next(_SIGN)
                    await response.write(b"event: sign\ndata:\n\n" if message is None else b"data: %b\n\n" % message)
        except (ConnectionError, asyncio.CancelledError):
            if task.cancelling():
                raise
            return response  # the browser is gone
        finally:
            self._streams.discard(task)

    async def _end_streams(self, _: web.Application) -> None:
        for task in self._streams:
            task.cancel()

    # -- for whoever runs it -------------------------------------------------------------------------------------------

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, _: web.Request) -> web.Response:
        state = self._sources.state()
        return web.json_response({"status": state}, status=200 if state == "ready" else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        body, kind = self._sources.metrics()
        return web.Response(body=body, headers={"Content-Type": kind})


def _json(answer: Answer) -> web.Response:
    status = _STATUS.get(answer.code, 400) if isinstance(answer, Error) else 200
    return web.Response(body=encode(answer), status=status, content_type="application/json")


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


@asynccontextmanager
async def serving(pages: Pages, host: str, port: int) -> AsyncIterator[str]:
    """Serve for as long as the block lasts; yields the address. A port that is taken is replaced by a free one."""
    runner = web.AppRunner(pages.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError:
            if not port:
                raise
            site = web.TCPSite(runner, host, 0)
            await site.start()
        bound = runner.addresses[0]
        yield f"http://{f'[{bound[0]}]' if ':' in bound[0] else bound[0]}:{bound[1]}"
    finally:
        await runner.cleanup()

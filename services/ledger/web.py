"""The ledger over HTTP: the questions as GET requests that answer JSON, for the page and for whoever builds upon it.

Read-only, and on loopback unless configured otherwise. What changes anything is asked over the bus.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from schemas.ledger import Answer, AskExplain, AskHistory, AskSql, AskStats, Error, Question, encode

_ASKED: dict[str, type[Question]] = {"history": AskHistory, "stats": AskStats, "explain": AskExplain, "sql": AskSql}

_STATUS = {"pull.unknown": 404, "sql.timeout": 504, "ledger.memory": 503, "sql.memory": 503}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


class Answers(Protocol):
    """Whoever answers questions."""

    async def answer(self, question: Question) -> Answer: ...


class Pages:
    """The routes.

    Args:
        questions: answers them.
    """

    def __init__(self, questions: Answers) -> None:
        self._questions = questions

    def application(self) -> web.Application:
        """All routes as one application."""
        application = web.Application(middlewares=[_harden])
        application.router.add_get("/healthz", self._healthy)
        application.router.add_get("/api/{question}", self._ask)
        return application

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ask(self, request: web.Request) -> web.Response:
        """`/api/history?reference=redis&limit=10`: the fields of a question are the parameters."""
        kind = _ASKED.get(request.match_info["question"])
        if kind is None:
            raise web.HTTPNotFound
        try:
            question = msgspec.convert(dict(request.query), kind, strict=False)
        except msgspec.ValidationError as exc:
            return _json(Error(code="question.invalid", message=str(exc)))
        return _json(await self._questions.answer(question))


def _json(answer: Answer) -> web.Response:
    status = _STATUS.get(answer.code, 400) if isinstance(answer, Error) else 200
    return web.Response(body=encode(answer), status=status, content_type="application/json")


@web.middleware
async def _harden(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


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

"""A registry that misbehaves on request, in the test's own event loop: what no real registry does when asked nicely."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.images import Image

Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse | None]]
"""Answers one request in place of the registry, or leaves that to it after all (None); is given what the right answer's body
would be."""


@dataclass
class FaultyRegistry:
    """Serves one image under any repository, except where a fault was planned.

    `async with FaultyRegistry(image) as registry:`

    Attributes:
        seen: every request, oldest first.
        times: when each of them came, by `time.monotonic`.
        guard: sees every request first; what it answers is the answer, None lets the request pass.
        tls: it is reached by https, with this certificate.
    """

    image: Image
    tag: str = "1"
    host: str = ""
    seen: list[web.BaseRequest] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    guard: Callable[[web.Request], Awaitable[web.Response | None]] | None = None
    tls: ssl.SSLContext | None = None
    _faults: list[tuple[str, Fault, int]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def reference(self) -> str:
        return f"{self.host}/app:{self.tag}"

    def plan(self, where: str, fault: Fault, times: int = 1) -> None:
        """Answer the next `times` requests whose `METHOD path` contains `where` with a fault."""
        self._faults.append((where, fault, times))

    def asked(self, where: str) -> list[web.BaseRequest]:
        """The requests whose `METHOD path` contains `where`."""
        return [request for request in self.seen if where in f"{request.method} {request.path}"]

    async def __aenter__(self) -> FaultyRegistry:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.times.append(time.monotonic())
        if self.guard is not None and (refused := await self.guard(request)) is not None:
            return refused
        headers, content = self._right(request.path)
        for number, (where, fault, times) in enumerate(self._faults):
            if where in f"{request.method} {request.path}":
                self._faults[number : number + 1] = [(where, fault, times - 1)] if times > 1 else []
                if (answer := await fault(request, content)) is not None:
                    return answer
                break
        if not headers:
            return error(404, "MANIFEST_UNKNOWN" if "manifests" in request.path else "BLOB_UNKNOWN", "not here")
        return whole_or_part(request, content, headers)

    def _right(self, path: str) -> tuple[dict[str, str], bytes]:
        name = path.rpartition("/")[2]
        if name in (self.tag, self.image.digest):
            return {"Content-Type": self.image.media_type, "Docker-Content-Digest": self.image.digest}, self.image.content
        if name in self.image.manifests:
            media_type, content = self.image.manifests[name]
            return {"Content-Type": media_type, "Docker-Content-Digest": name}, content
        if name in self.image.blobs:
            return {"Content-Type": "application/octet-stream"}, self.image.blobs[name]
        return {}, b""


def whole_or_part(request: web.Request, content: bytes, headers: Mapping[str, str] = {}) -> web.Response:
    """What a right registry answers: 200, or 206 where a range was asked for."""
    wanted = request.headers.get("Range", "")
    if not wanted:
        return web.Response(body=content, headers=headers)
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    told = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return web.Response(status=206, body=content[start:], headers=told)


def error(status: int, code: str, message: str, headers: Mapping[str, str] = {}) -> web.Response:
    """An answer in the spec's form."""
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers)


def answers(status: int, code: str = "", message: str = "", headers: Mapping[str, str] = {}) -> Fault:
    """Answer with a status and, if there is a code, an error in the spec's form."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        return error(status, code, message, headers) if code else web.Response(status=status, headers=headers)

    return fault


def sends(body: bytes, status: int = 200, headers: Mapping[str, str] = {}) -> Fault:
    """Answer with another body than the right one."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return fault


async def ignores_ranges(request: web.Request, content: bytes) -> web.StreamResponse:
    """Send the whole, whatever part was asked for."""
    return web.Response(body=content)


def breaks_after(count: int) -> Fault:
    """Promise what was asked for, send `count` bytes of it, and cut the connection."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        right = whole_or_part(request, content)
        assert isinstance(right.body, bytes)
        response = web.StreamResponse(status=right.status, headers={"Content-Length": str(len(right.body))})
        if "Content-Range" in right.headers:
            response.headers["Content-Range"] = right.headers["Content-Range"]
        await response.prepare(request)
        await response.write(right.body[:count])
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


def held_until(release: asyncio.Event) -> Fault:
    """Answer as is right, once released."""

    async def fault(request: web.Request, content: bytes) -> None:
        await release.wait()

    return fault


def stalls_after(count: int, release: Awaitable[object]) -> Fault:
    """Send `count` bytes, and then nothing until released."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[:count])
        await release
        return response

    return fault


def streams(body: bytes) -> Fault:
    """Send a body without saying how long it is."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(body)
        await response.write_eof()
        return response

    return fault

"""A registry that takes pushes and misbehaves on request, in the test's own event loop."""

from __future__ import annotations

import asyncio
import itertools
import re
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.faulty import error
from tests.support.images import digest_of

_UPLOAD = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<session>[^/]*)$")
_BLOB = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<digest>[^/]+)$")
_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<locator>[^/]+)$")
_NUMBERS = itertools.count()
"""Of uploads: none has the number of another, ended ones included."""

Fault = Callable[["PushRegistry", web.Request], Awaitable[web.StreamResponse | None]]
"""Answers one request in place of the registry, or leaves that to it after all (None)."""


@dataclass
class PushRegistry:
    """`async with PushRegistry() as registry:`

    Attributes:
        located: makes the `Location` of an upload, out of the registry and the upload's path.
        parts: whether it takes a blob in parts; 404 or 405 otherwise.
        most: bytes that a request may have.
        told: headers beside every answer to an upload.
        silent: headers that are never sent.
        guard: sees every request first.
        seen: every request as `METHOD path?query`, with its headers.
        taken: bytes of bodies that were read, of blobs alone.
    """

    located: Callable[[PushRegistry, str], str] = lambda registry, path: path
    parts: int = 202
    most: int = 1 << 40
    told: Mapping[str, str] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    guard: Callable[[web.Request], Awaitable[web.Response | None]] | None = None
    tls: ssl.SSLContext | None = None
    host: str = ""
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    seen: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    taken: int = 0
    _faults: list[tuple[str, Fault, int]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    def plan(self, where: str, fault: Fault, times: int = 1) -> None:
        """Answer the next `times` requests whose `METHOD path?query` contains `where` with a fault."""
        self._faults.append((where, fault, times))

    def asked(self, where: str) -> list[Mapping[str, str]]:
        """The headers of the requests whose `METHOD path?query` contains `where`."""
        return [headers for said, headers in self.seen if where in said]

    def has(self, repository: str, digests: Mapping[str, bytes]) -> bool:
        """Whether it holds exactly these blobs there."""
        return all(self.blobs.get((repository, digest)) == content for digest, content in digests.items())

    async def __aenter__(self) -> PushRegistry:
        app = web.Application(client_max_size=1 << 40)
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
        said = f"{request.method} {request.raw_path}"
        self.seen.append((said, request.headers))
        if self.guard is not None and (refused := await self.guard(request)) is not None:
            return refused
        for number, (where, fault, times) in enumerate(self._faults):
            if where in said:
                self._faults[number : number + 1] = [(where, fault, times - 1)] if times > 1 else []
                if (answer := await fault(self, request)) is not None:
                    return answer
                break
        if int(request.headers.get("Content-Length", "0")) > self.most:
            return self._answer(413)
        return await self._right(request)

    async def _right(self, request: web.Request) -> web.StreamResponse:
        if found := _UPLOAD.match(request.path):
            return await self._upload(request, found["repository"], found["session"])
        if found := _BLOB.match(request.path):
            blob = self.blobs.get((found["repository"], found["digest"]))
            return web.Response(body=blob) if blob is not None else error(404, "BLOB_UNKNOWN", "not here")
        if found := _MANIFEST.match(request.path):
            return await self._manifest(request, found["repository"], found["locator"])
        return web.json_response({})

    async def _upload(self, request: web.Request, repository: str, name: str) -> web.StreamResponse:
        match request.method:
            case "POST":
                mount, origin = request.query.get("mount", ""), request.query.get("from", "")
                if mount and (origin, mount) in self.blobs:
                    self.blobs[repository, mount] = self.blobs[origin, mount]
                    return self._answer(201, {"Docker-Content-Digest": mount})
                name = f"session-{next(_NUMBERS)}"
                self.sessions[name] = bytearray()
                return self._at(202, repository, name)
            case _ if name not in self.sessions:
                return error(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
            case "GET":
                return self._at(204, repository, name)
            case "PATCH":
                if self.parts != 202:
                    return self._answer(self.parts)
                start = int(request.headers["Content-Range"].partition("-")[0])
                if start != len(self.sessions[name]):
                    return self._at(416, repository, name)
                await self.take(request, name)
                return self._at(202, repository, name)
        await self.take(request, name)
        content = bytes(self.sessions.pop(name))
        if digest_of(content) != request.query["digest"]:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.blobs[repository, request.query["digest"]] = content
        return self._answer(201, {"Docker-Content-Digest": request.query["digest"]})

    async def take(self, request: web.Request, name: str, most: int = 1 << 40) -> None:
        """Read a body into an upload, so many bytes of it."""
        session = self.sessions[name]
        async for piece in request.content.iter_any():
            self.taken += len(piece)
            session += piece[:most]
            most -= len(piece)
            if most <= 0:
                return

    async def _manifest(self, request: web.Request, repository: str, locator: str) -> web.StreamResponse:
        if request.method != "PUT":
            found = self.manifests.get((repository, locator))
            if found is None:
                return error(404, "MANIFEST_UNKNOWN", "not here")
            headers = {"Content-Type": found[0], "Docker-Content-Digest": digest_of(found[1])}
            return web.Response(body=found[1], headers=headers)
        content = await request.read()
        digest = digest_of(content)
        for name in (locator, digest):
            self.manifests[repository, name] = request.headers["Content-Type"], content
        return self._answer(201, {"Docker-Content-Digest": digest})

    def _at(self, status: int, repository: str, name: str) -> web.Response:
        taken = len(self.sessions[name])
        where = self.located(self, f"/v2/{repository}/blobs/uploads/{name}")
        return self._answer(status, {"Location": where, "Range": f"0-{max(0, taken - 1)}"})

    def _answer(self, status: int, headers: Mapping[str, str] = {}) -> web.Response:
        told = {name: value for name, value in {**headers, **self.told}.items() if name not in self.silent}
        return web.Response(status=status, headers=told)


def answers(status: int, code: str = "", message: str = "", headers: Mapping[str, str] = {}) -> Fault:
    """Read the body, and answer with a status and, if there is a code, an error in the spec's form."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        await request.read()
        return error(status, code, message, headers) if code else web.Response(status=status, headers=headers)

    return fault


def breaks_after(count: int, *, kept: bool = True) -> Fault:
    """Take so many bytes of a body, and cut the connection. `kept`: they are part of the upload."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        before = bytes(registry.sessions[name])
        await registry.take(request, name, count)
        if not kept:
            registry.sessions[name] = bytearray(before)
        reset(request)
        return web.Response()

    return fault


def reset(request: web.Request) -> None:
    """Cut a connection as a machine that restarts does."""
    assert request.transport is not None
    sock = request.transport.get_extra_info("socket")
    sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER of no seconds
    request.transport.abort()


def forgets(registry_answers: int = 404) -> Fault:
    """Know nothing of any upload from now on."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        registry.sessions.pop(request.path.rpartition("/")[2], None)
        await request.read()
        return web.Response(status=registry_answers)

    return fault


def held_until(release: asyncio.Event, reached: asyncio.Event) -> Fault:
    """Say that a request came, and answer as is right once released."""

    async def fault(registry: PushRegistry, request: web.Request) -> None:
        reached.set()
        await release.wait()

    return fault


def drips(status: int, headers: Mapping[str, str]) -> Fault:
    """Answer at once, with a body that never ends."""

    async def fault(registry: PushRegistry, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.02)
        return response

    return fault

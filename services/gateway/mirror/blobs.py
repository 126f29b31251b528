"""Answers about blobs: from the store, or as they come into it.

The head of an answer goes out with the first byte, or a while before it, where a layer waits for its turn: containerd gives it
30 s. What fails after that breaks the connection off; the client comes back with `Range`, or goes elsewhere.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

from pullonce.store.content import ContentStore
from schemas.events import Source
from schemas.registry import LEASE, AskBlob, BlobFound
from services.gateway.mirror.access import Access
from services.gateway.mirror.catalog import Catalog, Content
from services.gateway.mirror.counts import Counts
from services.gateway.mirror.following import Broken, Followed
from services.gateway.mirror.names import Wanted
from services.gateway.mirror.pulls import Order, Pull, Pulls
from services.gateway.mirror.questions import Questions
from services.gateway.mirror.ranges import Span, span_of
from services.gateway.mirror.refusals import Refusal
from services.gateway.mirror.sending import Outlet

log = logging.getLogger(__name__)

_LOOK = 0.25
"""Seconds between two looks at a growing file of which nothing is heard."""
_QUIET = 10.0
"""Seconds without any progress of a pull after which whoever has no byte yet is told to go elsewhere."""
_HEAD_WITHIN = 15.0
"""Seconds after which the head goes out without a byte, where the pull makes progress with other layers."""
_STALLED = 60.0
"""Seconds after which whoever has some is broken off, where nothing comes any more."""
RESOLVED_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What answers are made of."""

    content: ContentStore
    catalog: Catalog
    access: Access
    pulls: Pulls
    questions: Questions
    counts: Counts
    connected: Callable[[], bool]


@dataclass(slots=True)
class _Coming:
    """A blob that is on its way."""

    pull: Pull | None
    """The pull that brings it; None: the fetcher was asked for it alone."""
    began: float
    own: Order | None = None
    """What to pull where another one's pull ends without it; None: nothing, or that is what is pulled."""
    uses: ExitStack = field(default_factory=ExitStack)
    """Keeps the pull going."""

    @property
    def heard_at(self) -> float:
        return max(self.began, self.pull.heard_at if self.pull else 0.0)


class Blobs:
    """Answers GET and HEAD of blobs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def answer(self, request: web.Request, wanted: Wanted, credential: str) -> web.StreamResponse:
        """A blob, or the part of it that is wanted.

        Raises:
            Refusal: it cannot be had, and nothing was sent.
        """
        known = await self._parts.catalog.find(wanted.place, wanted.digest)
        content = known[0] if known else None
        if content is not None:
            piecewise = not await self._parts.access.check(wanted, known, credential)
            size = content.size
        else:
            found = await self._unknown(wanted, credential, begin=request.method == "GET")
            piecewise, size = found.of == "content", found.size
        if self._parts.content.has(wanted.digest):
            size = self._parts.content.size(wanted.digest)  # a manifest may say anything
        span = span_of(request.headers.get("Range", ""), size)
        if span is None:
            return _unsatisfiable(wanted, size)
        response = _head(wanted, span)
        if request.method == "HEAD":
            return response
        with Followed(self._parts.content, wanted.digest, size) as followed:
            coming = await self._coming(wanted, content, credential) if not _is_whole(followed, size) else None
            with coming.uses if coming else nullcontext():
                if piecewise:
                    if coming is not None:
                        await self._until(lambda: _is_whole(followed, size), coming, patient=False)
                    alone = Content(size, manifest=wanted.digest, top=wanted.digest)
                    await self._parts.access.check_piece(wanted, content or alone, credential)
                elif coming is not None:
                    await self._until(lambda: followed.look() > span.start or _is_whole(followed, size), coming, patient=True)
                await self._send(request, response, followed, span, coming)
        return response

    async def _unknown(self, wanted: Wanted, credential: str, *, begin: bool) -> BlobFound:
        """What the registry says of a blob of which no manifest is known: its size, and whether it may be had."""
        source = Source(registry=wanted.registry, repository=wanted.repository, credential=credential)
        return await self._parts.questions.ask(AskBlob(source=source, digest=wanted.digest, begin=begin), BlobFound)

    async def _coming(self, wanted: Wanted, content: Content | None, credential: str) -> _Coming:
        """Have a blob brought, by whatever brings it already.

        Raises:
            Refusal: it cannot be pulled.
        """
        coming = _Coming(self._parts.pulls.of_blob(wanted.digest), asyncio.get_running_loop().time())
        if content is not None:
            coming.own = Order(f"{wanted.place}@{content.manifest}", credential, "if-not-present")
            if coming.pull is None:
                await self._begin_own(coming)
        else:
            coming.uses.enter_context(_repeated(partial(self._unknown, wanted, credential, begin=True)))
        if coming.pull is not None:
            coming.uses.enter_context(self._parts.pulls.using(coming.pull))
        return coming

    async def _begin_own(self, coming: _Coming) -> None:
        """Have the image pulled for this client: nobody else's pull brings the blob, or one has ended without it.

        Raises:
            Refusal: it cannot be pulled.
        """
        order, coming.own = coming.own, None
        if order is None or not self._parts.connected():
            raise Refusal("it is not being pulled, and the bus of pullonce does not answer", "pullonce.unavailable")
        await self._parts.pulls.resolve(order, RESOLVED_WITHIN)
        coming.pull, coming.began = self._parts.pulls.of(order), asyncio.get_running_loop().time()

    async def _until(self, ready: Callable[[], bool], coming: _Coming, *, patient: bool) -> None:
        """Wait until what is wanted may be given, or is so late that it is promised.

        Args:
            patient: whether it may be promised.

        Raises:
            Refusal: it does not come.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _HEAD_WITHIN
        while not ready():
            if await self._ended(coming, ready):
                continue
            if loop.time() - coming.heard_at > _QUIET or not self._parts.connected() or (not patient and loop.time() > until):
                raise Refusal("it does not come", "pullonce.late")
            if loop.time() > until:
                return
            await _news(coming.pull)

    async def _ended(self, coming: _Coming, ready: Callable[[], bool]) -> bool:
        """Whether the pull that was to bring a blob has ended, and something else does, or has done.

        Raises:
            Refusal: nothing brings it.
        """
        pull = coming.pull
        if pull is None or not pull.task.done() or ready():
            return False
        others = coming.own is not None and (pull.task.cancelled() or pull.order.credential != coming.own.credential)
        if not others:
            raise pull.failure or Refusal("its pull ended without it", "BLOB_UNKNOWN")
        await self._begin_own(coming)  # it was withdrawn, or somebody else's
        if coming.pull is not None:
            coming.uses.enter_context(self._parts.pulls.using(coming.pull))
        return True

    async def _send(
        self, request: web.Request, response: web.StreamResponse, followed: Followed, span: Span, coming: _Coming | None
    ) -> None:
        await response.prepare(request)
        counts = self._parts.counts
        with Outlet(request, response) as outlet:
            try:
                if coming is None:
                    await outlet.send(followed.fd, span.start, span.length)
                else:
                    counts.followed += 1
                    await self._follow(outlet, followed, span, coming)
                counts.bytes += span.length
            except (Broken, Refusal) as exc:
                counts.broken += 1
                log.warning("a blob was broken off: %s", exc, extra={"path": request.path})
                outlet.reset()
            except (OSError, TimeoutError):  # the client is gone
                outlet.reset()
            except BaseException:
                outlet.reset()
                raise

    async def _follow(self, outlet: Outlet, followed: Followed, span: Span, coming: _Coming) -> None:
        """Send what is there, and wait for more, to the end."""
        position, loop = span.start, asyncio.get_running_loop()
        moved = loop.time()
        while position < span.end:
            there = min(followed.look(position), span.end)
            if there > position:
                await outlet.send(followed.fd, position, there - position)
                position, moved = there, loop.time()
                continue
            if await self._ended(coming, partial(_has_more, followed, position)):
                continue
            if loop.time() - max(moved, coming.heard_at) > (_STALLED if self._parts.connected() else _QUIET):
                raise Broken("nothing comes any more")
            await _news(coming.pull)


@contextmanager
def _repeated(ask: Callable[[], Awaitable[object]]) -> Iterator[None]:
    """Ask for a blob again now and then, for as long as the block lasts: nobody else says that it is still wanted."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(LEASE / 4)
            with suppress(Refusal):  # what has come stays, and what does not come is seen by that
                await ask()

    renewing = asyncio.create_task(renew(), name="asking for a blob again")
    try:
        yield
    finally:
        renewing.cancel()


async def _news(pull: Pull | None) -> None:
    """Wait until it is worth looking again."""
    if pull is None:
        await asyncio.sleep(_LOOK / 5)
        return
    try:
        async with asyncio.timeout(_LOOK):
            await pull.news.wait()
    except TimeoutError:
        pass


def _has_more(followed: Followed, position: int) -> bool:
    return followed.look(position) > position


def _is_whole(followed: Followed, size: int) -> bool:
    return followed.look() == size and followed.verified


def _head(wanted: Wanted, span: Span) -> web.StreamResponse:
    response = web.StreamResponse(status=206 if span.partial else 200, headers=_headers(wanted))
    response.content_length = span.length
    if span.partial:
        response.headers["Content-Range"] = span.content_range
    return response


def _unsatisfiable(wanted: Wanted, size: int) -> web.Response:
    headers = {**_headers(wanted), "Content-Range": f"bytes */{size}"}
    del headers["Cache-Control"]
    return web.Response(status=416, headers=headers)


def _headers(wanted: Wanted) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": wanted.digest,
        "ETag": f'"{wanted.digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "max-age=31536000, immutable",
        "Docker-Distribution-Api-Version": "registry/2.0",
    }

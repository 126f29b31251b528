"""The requests of the distribution API that bring content to one server. Source: OCI distribution-spec 1.1, "Push".

Each is made once; what its answer means for the push is for `pushing/` to decide.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import aiohttp
import yarl

from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import Verifier, is_digest
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher.auth.authorizer import PUSH
from services.fetcher.auth.redaction import Secrets
from services.fetcher.documents.manifest import ACCEPT, MANIFEST_LIMIT, kind_of
from services.fetcher.remote.answers import read_limited, registry_errors
from services.fetcher.remote.failures import failure, redacted, retry_after, whole_number
from services.fetcher.remote.judgement import gives
from services.fetcher.remote.sessions import BrokenOff, Destination, Refused, Session, SessionGone
from services.fetcher.remote.transport import ERROR_LIMIT, Body, Transport, target_of

_RANGE = re.compile(r"(?:bytes=)?(\d{1,18})-(\d{1,18})")
_CUT_OFF = (408, 502, 504, 524)
"""What proxies answer that have waited for long enough; 524 is Cloudflare's."""
_TOLD = ("Location", "Range", "Docker-Upload-UUID", "Docker-Content-Digest", "Docker-Distribution-API-Version")
"""Headers of which a registry's success has one at least."""
_SLOWEST = 4 << 20
"""Bytes a second that a registry has to hash, or to move, once it has all of a blob."""


class Uploads:
    """Brings content to servers, one request at a time.

    Args:
        patience: seconds without a byte taken, after which a transfer is broken off.
    """

    def __init__(self, transport: Transport, secrets: Secrets, patience: float) -> None:
        self._transport = transport
        self._secrets = secrets
        self._patience = patience

    async def has(self, to: Destination, blob: Descriptor) -> bool:
        """Whether a blob is there. A server that will not say is taken to lack it: the upload will tell.

        Raises:
            Retryable: it cannot be reached, or is overloaded.
        """
        async with self._asked("HEAD", to, _api(to, f"blobs/{blob.digest}")) as response:
            if response.status == 429 or response.status >= 500:
                raise await self._failure(to, blob.digest, response)
            size = whole_number(response.headers.get("Content-Length", ""))
            right = 200 <= response.status < 300 and gives("blobs", blob.digest, response.headers)
            return right and (not size or size == blob.size)

    async def begin(self, to: Destination, blob: Digest, origin: str = "") -> Session | None:
        """Begin an upload, or (None) have the registry take the blob over from another repository.

        Args:
            origin: a repository of the same registry that may have it.

        Raises:
            Permanent, Retryable: neither is to be had.
        """
        url = _api(to, "blobs/uploads/", {"mount": blob, "from": origin} if origin else {})
        async with self._asked("POST", to, url, body=_NOTHING) as response:
            told = response.headers.get("Docker-Content-Digest", blob)
            if response.status == 201 and origin and told == blob:
                return None
            if response.status not in (200, 201, 202):
                raise await self._failure(to, blob, response)
            smallest = whole_number(response.headers.get("OCI-Chunk-Min-Length", "")) or 0
            return Session(self._next(response, None), 0, smallest)

    async def status(self, to: Destination, session: Session) -> Session:
        """How far an upload is.

        Raises:
            SessionGone: it has ended, or the registry does not say.
            Permanent, Retryable: there is no answer, or none to trust.
        """
        async with self._asked("GET", to, yarl.URL(session.location, encoded=True)) as response:
            if response.status == 429 or response.status >= 500:
                raise await self._failure(to, "an upload", response)
            if not 200 <= response.status < 300:
                raise SessionGone
            return replace(session, location=self._next(response, session), offset=_taken(response.headers))

    async def send(self, to: Destination, session: Session, blob: Digest, body: Body) -> Session:
        """Send one part, which begins where the upload stands.

        Raises:
            SessionGone, Refused: see there.
            Permanent, Retryable: see `has`.
        """
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{session.offset}-{session.offset + body.size - 1}",
        }
        url = yarl.URL(session.location, encoded=True)
        async with self._asked("PATCH", to, url, headers, body) as response:
            if not 200 <= response.status < 300:
                raise await self._refused(to, blob, response, body)
            offset = _taken(response.headers) or session.offset + body.size  # where it says nothing, it has taken all
            return replace(session, location=self._next(response, session), offset=offset)

    async def finish(self, to: Destination, session: Session, blob: Descriptor, body: Body | None = None) -> None:
        """End an upload; afterwards the blob is there.

        Args:
            body: what is still to be sent: all of it, where no part was.

        Raises:
            SessionGone, Refused: see there.
            Permanent, Retryable: see `has`; `digest.mismatch`, where the registry made something else of it.
        """
        located = session.location.partition("#")[0]
        url = yarl.URL(f"{located}{'&' if '?' in located else '?'}digest={blob.digest.replace(':', '%3A')}", encoded=True)
        patience = self._patience + blob.size / _SLOWEST
        sent = replace(body, patience=patience) if body else Body(0, _nothing, patience)
        async with self._asked("PUT", to, url, {"Content-Type": "application/octet-stream"}, sent) as response:
            if not 200 <= response.status < 300:
                raise await self._refused(to, blob.digest, response, body)
            self._check(to, blob.digest, response)

    async def named(self, to: Destination, locator: str) -> Digest | None:
        """What a tag or digest names there now; None where it names nothing, or the registry does not say.

        Raises:
            Retryable: it cannot be reached, or is overloaded.
        """
        async with self._asked("HEAD", to, _api(to, f"manifests/{locator}"), {"Accept": ACCEPT}) as response:
            if response.status == 429 or response.status >= 500:
                raise await self._failure(to, locator, response)
            told = response.headers.get("Docker-Content-Digest", "")
            return Digest(told) if response.status == 200 and is_digest(told) else None

    async def name(self, to: Destination, locator: str, manifest: Descriptor, content: bytes) -> bool:
        """Put a manifest or an index under a tag or its digest; whether the registry said what it made of it.

        Raises:
            Permanent, Retryable: see `has`; `digest.mismatch`, where the registry made something else of it.
        """
        body = Body(len(content), lambda: _whole(content), 4 * self._patience)
        headers = {"Content-Type": manifest.media_type}
        async with self._asked("PUT", to, _api(to, f"manifests/{locator}"), headers, body) as response:
            if not 200 <= response.status < 300:
                raise await self._failure(to, locator, response)
            self._check(to, manifest.digest, response)
            return "Docker-Content-Digest" in response.headers

    async def holds(self, to: Destination, locator: str, manifest: Descriptor) -> bool | None:
        """Whether a manifest that was put there is there, byte for byte; None where this credential may not read it.

        Raises:
            Retryable: see `named`; `registry.answer`, where there is nothing (some list what is new after a moment).
        """
        async with self._asked("GET", to, _api(to, f"manifests/{locator}"), {"Accept": ACCEPT}) as response:
            if response.status == 429 or response.status >= 500:
                raise await self._failure(to, locator, response)
            if response.status in (404, 410):
                what = f"{to.named} took {manifest.digest} as {locator}, and has nothing there"
                raise Retryable(what, code="registry.answer", brief=True)
            if response.status != 200:
                return None if response.status in (401, 403, 405) else False
            verifier = Verifier(manifest.digest)
            verifier.update(await self._body_of(to, response, MANIFEST_LIMIT))
            return verifier.verified()

    # -- below: one step each --

    @asynccontextmanager
    async def _asked(
        self, method: str, to: Destination, url: yarl.URL, headers: Mapping[str, str] = {}, body: Body | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of the server; a body of which it takes no byte for long is broken off."""
        begun = asyncio.Event()
        there = Source(registry=to.host.name, repository=to.source.repository, credential=to.source.credential)
        try:
            async with asyncio.timeout(None) as limit:
                watched = body and replace(body, read=lambda: _watched(body, limit, self._patience, begun))
                with self._secrets.cleaning():
                    answer = self._transport.answer(method, url, to.host, there, headers, body=watched, actions=PUSH)
                    async with answer as response:
                        limit.reschedule(None)
                        begun.clear()
                        _refuse_page(response)
                        yield response
        except TimeoutError as exc:
            what = f"{redacted(str(url))} has taken no byte for {self._patience:g} s"
            raise BrokenOff(what, code="registry.unavailable") from exc
        except Retryable as exc:
            raise (_broken_off(exc) if begun.is_set() else exc) from exc.__cause__

    async def _refused(self, to: Destination, what: str, response: aiohttp.ClientResponse, body: Body | None) -> Exception:
        if response.status in (404, 410):
            return SessionGone()
        found = await self._failure(to, what, response)
        if body is not None and response.status in _CUT_OFF and isinstance(found, Retryable):
            return _broken_off(found)
        if response.status in (401, 403, 408, 425, 429, 499) or (response.status >= 500 and response.status != 501):
            return found
        return Refused(response.status, Permanent(str(found), code=found.code, concerns=found.concerns))

    async def _failure(self, to: Destination, what: str, response: aiohttp.ClientResponse) -> Permanent | Retryable:
        body = b""
        if response.method != "HEAD":
            body = await self._body_of(to, response, ERROR_LIMIT)
        after = retry_after(response.headers.get("Retry-After"), time.time())
        named = f"{to.named}{'' if ' ' in what else '@' if ':' in what else ':'}{'' if ' ' in what else what}"
        return failure("push", named, response.status, body, after=after, clean=self._secrets.clean)

    async def _body_of(self, to: Destination, response: aiohttp.ClientResponse, limit: int) -> bytes:
        with registry_errors(to.named):
            async with asyncio.timeout(2 * self._patience):
                return await read_limited(response, limit)

    def _check(self, to: Destination, digest: Digest, response: aiohttp.ClientResponse) -> None:
        told = response.headers.get("Docker-Content-Digest", "")
        if is_digest(told) and told != digest and told.partition(":")[0] == digest.partition(":")[0]:
            what = f"{to.named} made {told} of {digest}, which was pushed to it"
            raise Permanent(what, code="digest.mismatch")

    def _next(self, response: aiohttp.ClientResponse, session: Session | None) -> str:
        """Where an upload goes on.

        A registry behind a proxy that ends TLS may name itself by plain HTTP: it is asked as it was before.
        """
        location = response.headers.get("Location")
        if not location:
            if session is None:
                raise Permanent(f"{redacted(str(response.url))} does not say where an upload goes on", code="registry.answer")
            return session.location
        url, target = response.url, target_of(response.url, location)
        if url.scheme == "https" and target.scheme == "http" and target.host == url.host and target.port in (80, url.port):
            return f"{url.origin()}{target.raw_path_qs}"
        return str(target)


def _broken_off(exc: Retryable) -> BrokenOff:
    return BrokenOff(str(exc), code=exc.code, after=exc.after, concerns=exc.concerns, brief=exc.brief)


def _refuse_page(response: aiohttp.ClientResponse) -> None:
    """A login page, or a portal, answers 200 as well. Its type alone is no proof: quay.io calls an empty answer a page.

    Raises:
        Permanent: `registry.answer`.
    """
    page = kind_of(response.headers.get("Content-Type", "")) == "text/html" and response.content_length != 0
    if page and 200 <= response.status < 300 and response.method != "HEAD" and not any(map(response.headers.get, _TOLD)):
        what = f"{redacted(str(response.url))} answers with a page for people, as a login or a portal does, and no registry"
        raise Permanent(what, code="registry.answer")


def _api(to: Destination, path: str, query: Mapping[str, str] = {}) -> yarl.URL:
    """An address of the server itself; a mirror is told which registry is meant."""
    named = {**query, **({"ns": to.source.registry} if to.host.mirror else {})}
    url = yarl.URL(f"{to.host.origin}{to.host.path}/{to.source.repository}/{path}")
    return url.with_query(named) if named else url


def _taken(headers: Mapping[str, str]) -> int:
    """Bytes that a registry has of an upload; 0 where it does not say. `0-0` is what an empty one has."""
    given = _RANGE.fullmatch(headers.get("Range", "").strip())
    return int(given[2]) + 1 if given is not None and int(given[1]) == 0 < int(given[2]) else 0


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""


_NOTHING = Body(0, _nothing)


async def _whole(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


async def _watched(body: Body, limit: asyncio.Timeout, patience: float, begun: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """A body each piece of which has to be taken in time. `begun`: there was one to take it."""
    loop = asyncio.get_running_loop()
    async with aclosing(body.read()) as pieces:
        async for piece in pieces:
            limit.reschedule(loop.time() + patience)
            begun.set()
            yield piece
    limit.reschedule(None)  # from here on the transport waits, for the answer

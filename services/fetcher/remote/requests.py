"""The requests of the distribution API to one server, and what its answers hold. Source: OCI distribution-spec 1.1, "Pull"."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

import aiohttp
import yarl

from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import is_digest, matches, parse_digest
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher.auth.redaction import Secrets
from services.fetcher.documents.manifest import ACCEPT, MANIFEST_LIMIT, read_document
from services.fetcher.remembered import Remembered
from services.fetcher.remote.answers import read_limited, registry_errors
from services.fetcher.remote.bodies import body_of, decoded, undone
from services.fetcher.remote.encoding import decoder_of, encodings
from services.fetcher.remote.failures import Asked, failure, retry_after, whole_number
from services.fetcher.remote.judgement import Judged, Judgement, Kind, gives
from services.fetcher.remote.ranges import bytes_to_skip, length_of
from services.fetcher.remote.transport import ERROR_LIMIT, Transport
from services.fetcher.servers.hosts import Host, secured

LISTING_LIMIT = 16 << 20
"""Bytes that a list of tags or of referrers may have."""
_ANEW = {"Cache-Control": "no-cache"}
"""Past whatever keeps copies on the way: one of them may be damaged."""


class Requests:
    """Asks one server at a time; which one, the registry client decides.

    Attributes:
        judged: told what servers give and refuse.
    """

    def __init__(self, transport: Transport, secrets: Secrets) -> None:
        self._transport = transport
        self._secrets = secrets
        self._speak_tls: Remembered[str, bool] = Remembered(1000)
        self.judged: Judged | None = None

    async def head(self, host: Host, source: Source, locator: str) -> Descriptor | None:
        """What a tag or digest names; None where only a GET can tell, or can say why not.

        Raises:
            Permanent, Retryable: nobody there, nothing said, or too much asked: a GET would fare no better.
        """
        try:
            async with self._asked("HEAD", host, source, "manifests", locator, {"Accept": ACCEPT}) as response:
                if response.status == 429:
                    raise await self._failure("manifest", source, locator, host, response)
                return _described(response)
        except Permanent as exc:
            if exc.code not in ("registry.redirects", "registry.answer"):
                raise
            return None
        except Retryable as exc:
            if exc.concerns == "credential" or isinstance(exc.__cause__, TimeoutError | aiohttp.ClientConnectorError):
                raise
            return None

    async def check(self, host: Host, source: Source, kind: Kind, locator: str) -> bool:
        """Whether something is there: by HEAD, or by the beginning of a GET where that says nothing; what neither shows to be a
        manifest is read.

        Raises:
            Permanent, Retryable: it is not, or nobody can say now.
        """
        wanted = {"Accept": ACCEPT} if kind == "manifests" else {}
        for method, headers in (("HEAD", wanted), ("GET", {**wanted, "Range": "bytes=0-0"})):
            async with self._asked(method, host, source, kind, locator, headers) as response:
                if 200 <= response.status < 300:
                    if gives(kind, locator, response.headers):
                        return True
                    continue
                elsewhere = response.url.host != yarl.URL(host.origin).host
                if method == "GET" or not (elsewhere or response.status in (400, 405, 501)):
                    raise await self._failure("manifest" if kind == "manifests" else "blob", source, locator, host, response)
        if kind == "blobs":
            raise Permanent(f"{host.origin} answers with a page instead of {locator}", code="BLOB_UNKNOWN")
        try:
            content_type, content = await self.manifest(host, source, locator)
            read_document(content, content_type, named_of(source, locator))
        except Permanent as exc:
            raise Permanent(f"{host.origin} answers with no manifest: {exc}", code="MANIFEST_UNKNOWN") from exc
        if self.judged is not None:  # by whatever was shown: that anybody may have it, nothing says
            await self.judged(Judgement(source, kind, locator, host.mirror, given=True, secret=True))
        return True

    async def manifest(self, host: Host, source: Source, locator: str) -> tuple[str, bytes]:
        """The content type and bytes of what a tag or digest names, checked where a digest is known; damaged ones once more."""
        try:
            return await self._manifest(host, source, locator, {})
        except Permanent as exc:
            if exc.code not in ("digest.mismatch", "registry.encoding"):
                raise
            return await self._manifest(host, source, locator, _ANEW)

    async def size(self, host: Host, source: Source, digest: Digest) -> int:
        """How many bytes a blob has, by the head of an answer.

        Raises:
            Permanent, Retryable: it is not there, or nobody says now.
        """
        async with self._asked("HEAD", host, source, "blobs", digest, {}) as response:
            size = whole_number(response.headers.get("Content-Length", ""))
            if response.status == 200 and gives("blobs", digest, response.headers) and size is not None:
                return size
            if response.status != 200:
                raise await self._failure("blob", source, digest, host, response)
        raise Permanent(f"{host.origin} does not say how large {digest} is", code="BLOB_UNKNOWN")

    async def listing(
        self, host: Host, source: Source, kind: Kind, locator: str, query: Mapping[str, str]
    ) -> tuple[Mapping[str, str], bytes]:
        """The headers and the body of a list: the tags of a repository, the referrers of a manifest.

        Raises:
            Permanent, Retryable: there is none, or none to be had now.
        """
        what = f"{source.registry}/{source.repository} ({kind})"
        async with self._asked("GET", host, source, kind, locator, {}, query) as response:
            if response.status != 200:
                raise await self._failure("manifest", source, locator, host, response)
            with registry_errors(what):
                content = await read_limited(response, LISTING_LIMIT)
            named = encodings(response.headers.get("Content-Encoding", ""))
            content = undone(content, named, what, LISTING_LIMIT) if named else content
            if len(content) > LISTING_LIMIT:
                raise Permanent(f"{what}: the list is longer than {LISTING_LIMIT >> 20} MiB", code="registry.answer")
            return response.headers, content

    async def part(
        self, host: Host, source: Source, blob: Descriptor, position: int, *, anew: bool
    ) -> AsyncGenerator[bytes, None]:
        """One answer's bytes of a blob from `position` on, until its end.

        Args:
            anew: past caches.

        Raises:
            Interrupted: it broke off.
        """
        more = _ANEW if anew else {}
        for wanted in ({"Range": f"bytes={position}-"}, {}) if position else ({},):
            async with self._asked("GET", host, source, "blobs", blob.digest, {**wanted, **more}) as response:
                if response.status not in (200, 206) and not (response.status == 416 and wanted):
                    raise await self._failure("blob", source, blob.digest, host, response)
                named = encodings(response.headers.get("Content-Encoding", ""))
                encoded = bool(named) and length_of(response.status, response.headers) != blob.size
                skip = bytes_to_skip(response.status, response.headers, position, blob, encoded=encoded)
                if skip is None:
                    continue
                body = body_of(response)
                if encoded:
                    length = whole_number(response.headers.get("Content-Length", ""))
                    body = decoded(body, decoder_of(named, blob.digest), blob, length)
                async with aclosing(body):
                    async for chunk in body:
                        if skip < len(chunk):
                            yield chunk[skip:] if skip else chunk
                        skip = max(0, skip - len(chunk))
                return
        what = f"{named_of(source, blob.digest)}: the registry answers with parts that were not asked for"
        raise Permanent(what, code="registry.ranges")

    async def settled(self, host: Host, source: Source) -> Host:
        """A server by the one scheme that it speaks, for requests that cannot find that out by the way.

        Raises:
            Permanent, Retryable: nobody there, or nothing said.
        """
        if not host.guessed:
            return host
        async with self._asked("GET", host, source, "manifests", "latest", {"Accept": ACCEPT}):
            return secured(host) if self._speak_tls.get(host.origin) else replace(host, guessed=False)

    # -- below: one step each --

    async def _manifest(self, host: Host, source: Source, locator: str, more: dict[str, str]) -> tuple[str, bytes]:
        what = named_of(source, locator)
        async with self._asked("GET", host, source, "manifests", locator, {"Accept": ACCEPT, **more}) as response:
            if response.status != 200:
                raise await self._failure("manifest", source, locator, host, response)
            with registry_errors(what):
                content = await read_limited(response, MANIFEST_LIMIT)
            content_type, told = response.headers.get("Content-Type", ""), response.headers.get("Docker-Content-Digest", "")
            named = encodings(response.headers.get("Content-Encoding", ""))
        expected = {digest for digest in (told, locator) if is_digest(digest)}
        if named and not any(matches(content, parse_digest(digest)) for digest in expected):
            content = undone(content, named, what, MANIFEST_LIMIT)
        if len(content) > MANIFEST_LIMIT:
            raise Permanent(f"the manifest of {what} is longer than 4 MiB", code="MANIFEST_INVALID")
        for digest in expected:
            if not matches(content, parse_digest(digest)):
                raise Permanent(f"the registry sends something else as {what} than {digest}", code="digest.mismatch")
        return content_type, content

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        host: Host,
        source: Source,
        kind: Kind,
        locator: str,
        headers: dict[str, str],
        query: Mapping[str, str] = {},
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of one server, by TLS where that is what it turns out to speak."""
        async with AsyncExitStack() as stack:

            async def answer(host: Host) -> aiohttp.ClientResponse:
                url = _url(host, source, kind, locator, query)
                return await stack.enter_async_context(self._answer(method, url, host, source, kind, locator, headers))

            response = await (self._guessed(host, answer) if host.guessed else answer(host))
            if response.status == 400 and host.guessed and method != "HEAD":  # a HEAD says nothing, a GET will
                body = await self._refusal(source, locator, response)
                if b"https" not in body.lower():
                    raise self._meaning("blob" if kind == "blobs" else "manifest", source, locator, host, response, body)
                await stack.aclose()
                response = await answer(secured(host))
                self._speak_tls.put(host.origin, True)
            yield response

    async def _guessed(self, host: Host, answer: Callable[[Host], Awaitable[aiohttp.ClientResponse]]) -> aiohttp.ClientResponse:
        """The answer of a server that may speak TLS: then it cannot read what we say, and breaks off or answers by an alert."""
        if self._speak_tls.get(host.origin):
            try:
                return await answer(secured(host))
            except Retryable as exc:
                if not _speaks_no_tls(exc.__cause__):
                    raise
                self._speak_tls.drop(host.origin)
        try:
            return await answer(host)
        except Retryable as exc:
            if not isinstance(exc.__cause__, aiohttp.ServerDisconnectedError | aiohttp.ClientResponseError):
                raise
            try:
                response = await answer(secured(host))
            except Retryable:
                raise exc from exc.__cause__
            self._speak_tls.put(host.origin, True)
            return response

    @asynccontextmanager
    async def _answer(
        self, method: str, url: yarl.URL, host: Host, source: Source, kind: Kind, locator: str, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        there = Source(registry=host.name, repository=source.repository, credential=source.credential)

        async def judged(given: bool, secret: bool, headers: Mapping[str, str]) -> None:
            if self.judged is not None and (not given or gives(kind, locator, headers)):
                await self.judged(Judgement(source, kind, locator, host.mirror, given, secret))

        with self._secrets.cleaning():
            async with self._transport.answer(method, url, host, there, headers, judged) as response:
                yield response

    async def _refusal(self, source: Source, locator: str, response: aiohttp.ClientResponse) -> bytes:
        with registry_errors(named_of(source, locator)):
            return await read_limited(response, ERROR_LIMIT)

    async def _failure(
        self, asked: Asked, source: Source, locator: str, host: Host, response: aiohttp.ClientResponse
    ) -> Permanent | Retryable:
        return self._meaning(asked, source, locator, host, response, await self._refusal(source, locator, response))

    def _meaning(
        self, asked: Asked, source: Source, locator: str, host: Host, response: aiohttp.ClientResponse, body: bytes
    ) -> Permanent | Retryable:
        """What an answer that is no success means. What storage refuses, another attempt gets a fresh signature for."""
        after = retry_after(response.headers.get("Retry-After"), time.time())
        found = failure(asked, named_of(source, locator), response.status, body, after=after, clean=self._secrets.clean)
        if isinstance(found, Permanent) and response.url.host != yarl.URL(host.origin).host and response.status in (401, 403):
            return Retryable(f"{found} (at {response.url.host})", code="registry.storage")
        return found


def named_of(source: Source, locator: str | Digest) -> str:
    """A manifest or blob in words that people know."""
    return f"{source.registry}/{source.repository}{'@' if ':' in locator else ':'}{locator}"


def _url(host: Host, source: Source, kind: Kind, locator: str, query: Mapping[str, str]) -> yarl.URL:
    """What is asked of one server. A mirror serves many registries, so it is told which one is meant."""
    url = yarl.URL(f"{host.origin}{host.path}/{source.repository}/{kind}/{locator}")
    return url.with_query({**query, **({"ns": source.registry} if host.mirror else {})}) if query or host.mirror else url


def _speaks_no_tls(exc: BaseException | None) -> bool:
    """Whether a connection was made, and what is there could not agree on TLS; certificates are another matter."""
    broke_off = isinstance(exc, aiohttp.ClientConnectorError) and isinstance(exc.os_error, ConnectionResetError)
    return broke_off or isinstance(exc, aiohttp.ClientConnectorSSLError)


def _described(response: aiohttp.ClientResponse) -> Descriptor | None:
    """What the head of an answer says; None where it does not say enough, or of something compressed."""
    headers = response.headers
    digest, size = headers.get("Docker-Content-Digest", ""), whole_number(headers.get("Content-Length", ""))
    if response.status != 200 or not is_digest(digest) or not size or encodings(headers.get("Content-Encoding", "")):
        return None
    return Descriptor(media_type=headers.get("Content-Type", ""), digest=parse_digest(digest), size=size)

"""The distribution API: what a tag names, a manifest, a blob that survives breaks.

Source: OCI distribution-spec 1.1, "Pull". Every request goes out once to each server that may be asked; the one retry in here
is a blob's continuation after bytes arrived. All else is the worker's decision.

A registry may have mirrors (`hosts.py`). They are asked before it, in their order; what one of them cannot or will not give,
the next one is asked for. Digests are verified whoever served.
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import aiohttp
import yarl

from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import is_digest, matches, parse_digest
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher.auth.authorizer import Authorizer
from services.fetcher.auth.credentials import Credentials
from services.fetcher.auth.redaction import Secrets
from services.fetcher.auth.tokens import Tokens
from services.fetcher.documents.manifest import ACCEPT, MANIFEST_LIMIT
from services.fetcher.remote.answers import read_limited, registry_errors, unforeseen
from services.fetcher.remote.connections import Connections
from services.fetcher.remote.failures import Asked, failure, retry_after, told_of, whole_number
from services.fetcher.remote.ranges import bytes_to_skip
from services.fetcher.remote.transport import ERROR_LIMIT, Transport
from services.fetcher.servers.hosts import Capability, Host, able
from services.fetcher.servers.mirrors import REST, Mirrors
from services.fetcher.settings import RegistrySettings

log = logging.getLogger(__name__)

_MOST_CONTINUATIONS = 10
_MOST_DOUBTED = 1000

Failure = Permanent | Retryable
_T = TypeVar("_T")


class _Interrupted(Exception):
    """A body broke off."""


class Registry:
    """Speaks to all registries and their mirrors. Made by `connect`.

    Attributes:
        secrets: what must not be told, whoever says it.
    """

    def __init__(self, transport: Transport, mirrors: Mirrors, secrets: Secrets) -> None:
        self.secrets = secrets
        self._transport = transport
        self._mirrors = mirrors
        self._doubted: dict[Digest, None] = {}

    async def head(self, source: Source, locator: str) -> Descriptor | None:
        """What a tag or digest names now, without its content; None where the registry will not say without.

        Raises:
            Permanent: `MANIFEST_UNKNOWN`, `NAME_UNKNOWN`, `UNAUTHORIZED`, `DENIED`…
            Retryable: the registry cannot be reached, is overloaded or asks us to wait.
        """
        return await self._first(source, locator, lambda host: self._head(host, source, locator))

    async def manifest(self, source: Source, locator: str) -> tuple[str, bytes]:
        """The content type and bytes of what a tag or digest names; checked against the digest where one is known.

        Raises:
            Permanent, Retryable: as `head`; and `digest.mismatch`, `MANIFEST_INVALID` for one that is too long.
        """
        found = await self._first(source, locator, lambda host: self._manifest(host, source, locator))
        assert found is not None
        return found

    async def blob(self, source: Source, blob: Descriptor, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob from `start` on, unverified. A broken transfer is continued as long as it makes progress.

        The source may send more or fewer bytes than the descriptor says; whoever stores them finds out.

        Raises:
            Permanent: `BLOB_UNKNOWN`, `layer.foreign`, `size.mismatch`, …
            Retryable: `registry.interrupted`, or as `head`.
        """
        hosts = self._hosts(source, blob.digest)
        tried: list[tuple[Host, Failure]] = []
        position, continuations = start, 0
        while position < blob.size:
            before = position
            found: Failure | None = None
            try:
                async with aclosing(self._part(hosts[0], source, blob, position)) as part:
                    async for chunk in part:
                        position += len(chunk)
                        yield chunk
            except _Interrupted as exc:
                if position == before or continuations == _MOST_CONTINUATIONS:
                    why = self.secrets.told(str(exc))
                    what = f"{_named(source, blob.digest)} broke off at byte {position} of {blob.size}: {why}"
                    found = Retryable(what, code="registry.interrupted")
                    found.__cause__ = exc
            except (Permanent, Retryable) as exc:
                found = exc
            except Exception as exc:  # whatever it is, this server's answer led to it
                found = unforeseen(hosts[0].origin, exc)
            else:
                if position == before and len(hosts) == 1:
                    return  # the source has no more
                if position == before:
                    found = Permanent(f"{hosts[0].origin} sends too little of {blob.digest}", code="size.mismatch")
            continuations += 1
            if found is not None:
                self._missed(hosts[0], found)
                tried.append((hosts.pop(0), found))
                continuations = 0
                if not hosts:
                    raise told_of(blob, _told(tried))

    def doubt(self, source: Source, digest: Digest) -> Retryable | None:
        """What it means that a blob was not its digest: a mirror may have sent it, so from now on its registry alone is asked.

        None where it alone was asked already.
        """
        if digest in self._doubted or len(able(self._mirrors.of(source.registry), "pull")) < 2:
            return None
        while len(self._doubted) >= _MOST_DOUBTED:
            del self._doubted[next(iter(self._doubted))]
        self._doubted[digest] = None
        what = f"a mirror of {source.registry} may have sent something else as {digest}: its registry is asked"
        log.warning("%s", what, extra={"digest": digest})
        return Retryable(what, code="digest.mismatch", after=0.0)

    # -- which server ----------------------------------------------------------------------------------------------------

    def _hosts(self, source: Source, locator: str) -> list[Host]:
        """Whom to ask, in this order: those that may answer and could be reached a moment ago."""
        capability: Capability = "pull" if ":" in locator else "resolve"
        hosts = able(self._mirrors.of(source.registry), capability)
        if not hosts:
            what = f"no server that the hosts.toml of {source.registry} names has the capability {capability!r}"
            raise Permanent(what, code="hosts.invalid")
        if locator in self._doubted:
            return hosts[-1:]
        return [*(host for host in hosts[:-1] if not self._mirrors.away(host)), hosts[-1]]

    async def _first(self, source: Source, locator: str, ask: Callable[[Host], Awaitable[_T | None]]) -> _T | None:
        """The first answer that is one."""
        hosts = self._hosts(source, locator)
        tried: list[tuple[Host, Failure]] = []
        for host in hosts:
            try:
                found = await ask(host)
                if found is not None or host is hosts[-1]:
                    return found
            except (Permanent, Retryable) as exc:
                self._missed(host, exc)
                tried.append((host, exc))
            except Exception as exc:  # whatever it is, this server's answer led to it
                tried.append((host, unforeseen(host.origin, exc)))
        raise _told(tried)

    def _missed(self, host: Host, found: Failure) -> None:
        """Leave a mirror alone for a while if it could not be reached."""
        if not host.mirror or not isinstance(found.__cause__, aiohttp.ClientConnectionError | TimeoutError | OSError):
            return
        if not self._mirrors.away(host):
            log.warning("the mirror %s is left out for %d s: %s", host.origin, REST, found)
        self._mirrors.missed(host)

    # -- one server --------------------------------------------------------------------------------------------------------

    async def _head(self, host: Host, source: Source, locator: str) -> Descriptor | None:
        async with self._asked("HEAD", host, source, "manifests", locator, {"Accept": ACCEPT}) as response:
            headers = response.headers
            if response.status in (429, 500, 502, 503, 504):
                raise await self._failure("manifest", host, source, locator, response)
            # Anything else that went wrong is explained only in the body of a GET.
            digest, length = headers.get("Docker-Content-Digest", ""), headers.get("Content-Length", "")
            size = whole_number(length) or 0
            if response.status != 200 or not is_digest(digest) or not size:
                return None
            return Descriptor(media_type=headers.get("Content-Type", ""), digest=parse_digest(digest), size=size)

    async def _manifest(self, host: Host, source: Source, locator: str) -> tuple[str, bytes]:
        async with self._asked("GET", host, source, "manifests", locator, {"Accept": ACCEPT}) as response:
            if response.status != 200:
                raise await self._failure("manifest", host, source, locator, response)
            with registry_errors(_named(source, locator)):
                content = await read_limited(response, MANIFEST_LIMIT)
            content_type, told = response.headers.get("Content-Type", ""), response.headers.get("Docker-Content-Digest", "")
        if len(content) > MANIFEST_LIMIT:
            raise Permanent(f"the manifest of {_named(source, locator)} is longer than 4 MiB", code="MANIFEST_INVALID")
        for expected in {told, locator if ":" in locator else ""} - {""}:
            if not matches(content, parse_digest(expected)):
                why = f"the registry sends something else as {_named(source, locator)} than {expected}"
                raise Permanent(why, code="digest.mismatch")
        return content_type, content

    async def _part(self, host: Host, source: Source, blob: Descriptor, position: int) -> AsyncGenerator[bytes, None]:
        """One answer's bytes from `position` on, until its end."""
        for wanted in ({"Range": f"bytes={position}-"}, {}) if position else ({},):
            async with self._asked("GET", host, source, "blobs", blob.digest, wanted) as response:
                if response.status not in (200, 206) and not (response.status == 416 and wanted):
                    raise await self._failure("blob", host, source, blob.digest, response)
                skip = bytes_to_skip(response.status, response.headers, position, blob)
                if skip is None:
                    continue
                async with aclosing(_body(response)) as body:
                    async for chunk in body:
                        if skip < len(chunk):
                            yield chunk[skip:] if skip else chunk
                        skip = max(0, skip - len(chunk))
                return
        raise Permanent(
            f"{_named(source, blob.digest)}: the registry answers with parts that were not asked for", code="registry.ranges"
        )

    @asynccontextmanager
    async def _asked(
        self, method: str, host: Host, source: Source, kind: str, locator: str, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of one server. A mirror serves many registries, so it is told which one is meant."""
        url = yarl.URL(f"{host.origin}{host.path}/{source.repository}/{kind}/{locator}")
        if host.mirror:
            url = url.with_query({"ns": source.registry})
        there = Source(registry=host.name, repository=source.repository, credential=source.credential)
        with self.secrets.cleaning():
            async with self._transport.answer(method, url, host, there, headers) as response:
                yield response

    async def _failure(
        self, asked: Asked, host: Host, source: Source, locator: str, response: aiohttp.ClientResponse
    ) -> Failure:
        """What an answer that is no success means. What storage refuses, another attempt gets a fresh signature for."""
        after = retry_after(response.headers.get("Retry-After"), time.time())
        with registry_errors(_named(source, locator)):
            body = await read_limited(response, ERROR_LIMIT)
        found = failure(asked, _named(source, locator), response.status, body, after=after, clean=self.secrets.clean)
        if isinstance(found, Permanent) and response.url.host != yarl.URL(host.origin).host and response.status in (401, 403):
            return Retryable(f"{found} (at {response.url.host})", code="registry.storage")
        return found


@asynccontextmanager
async def connect(settings: RegistrySettings, credentials: Credentials, version: str) -> AsyncIterator[Registry]:
    """A registry client with its pool of connections.

    Args:
        version: of this program, for `User-Agent`.
    """
    headers = {"User-Agent": f"pullonce/{version}", "Accept-Encoding": "identity"}
    mirrors = Mirrors(settings.hosts, settings.plain)
    async with Connections(settings, headers) as connections:
        secrets = credentials.secrets
        authorizer = Authorizer(Tokens(connections, settings, mirrors, secrets), credentials)
        yield Registry(Transport(connections, authorizer, settings, mirrors, secrets), mirrors, secrets)


async def _body(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise _Interrupted(str(exc) or "no byte came in time") from exc


def _told(tried: list[tuple[Host, Failure]]) -> Failure:
    """What the last server says, who is the one that must know, and what the others had said before."""
    found = tried[-1][1]
    if len(tried) == 1:
        return found
    message = f"{found}; asked before it: {'; '.join(f'{host.origin} ({why})' for host, why in tried[:-1])}"
    told: Failure
    if isinstance(found, Retryable):
        told = Retryable(message, code=found.code, after=found.after, concerns=found.concerns)
    else:
        told = Permanent(message, code=found.code, concerns=found.concerns)
    told.__cause__ = found
    return told


def _named(source: Source, locator: str | Digest) -> str:
    return f"{source.registry}/{source.repository}{'@' if ':' in locator else ':'}{locator}"

"""Registries and their mirrors: which server is asked, and what is made of its silence, its errors and its breaks.

Every request goes out once to each server that may be asked; the one retry in here is a blob's continuation after bytes
arrived. All else is for whoever asks to decide.

A registry may have mirrors (`servers/hosts.py`). They are asked before it, in their order; what one of them cannot or will not
give, the next one is asked for. Digests are verified whoever served.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import aiohttp

from pullonce.errors import Permanent, Retryable
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher.auth.authorizer import Authorizer
from services.fetcher.auth.credentials import Credentials
from services.fetcher.auth.tokens import Tokens
from services.fetcher.remote.answers import unforeseen
from services.fetcher.remote.bodies import Interrupted
from services.fetcher.remote.connections import Connections
from services.fetcher.remote.failures import explain_blob
from services.fetcher.remote.judgement import Judged, Kind
from services.fetcher.remote.requests import Requests, named_of
from services.fetcher.remote.sessions import Destination
from services.fetcher.remote.transport import Transport
from services.fetcher.remote.uploads import Uploads
from services.fetcher.servers.hosts import Capability, Host, having
from services.fetcher.servers.mirrors import REST, Mirrors
from services.fetcher.settings import RegistrySettings

log = logging.getLogger(__name__)

_MOST_CONTINUATIONS = 10

Failure = Permanent | Retryable
_T = TypeVar("_T")


class Registry:
    """Speaks to all registries and their mirrors. Made by `connect`.

    Attributes:
        secrets: what must not be told, whoever says it.
        uploads: what brings content to a `destination`.
    """

    def __init__(self, requests: Requests, uploads: Uploads, mirrors: Mirrors, credentials: Credentials) -> None:
        self.secrets = credentials.secrets
        self._credentials = credentials
        self.uploads = uploads
        self._requests = requests
        self._mirrors = mirrors

    async def head(self, source: Source, locator: str) -> Descriptor | None:
        """What a tag or digest names now, without its content; None where the registry will not say without.

        Raises:
            Permanent: `MANIFEST_UNKNOWN`, `NAME_UNKNOWN`, `UNAUTHORIZED`, `DENIED`…
            Retryable: the registry cannot be reached, is overloaded or asks us to wait.
        """
        return await self._first(source, locator, lambda host: self._requests.head(host, source, locator))

    def tell(self, judged: Judged) -> None:
        """From now on somebody is told what registries give and refuse."""
        self._requests.judged = judged

    async def check(self, source: Source, kind: Kind, locator: str) -> None:
        """Ask whether a manifest or a blob is there for this credential, without its content.

        Raises:
            Permanent, Retryable: as `head`; it is not, or nobody can say now.
        """
        await self._first(source, locator, lambda host: self._requests.check(host, source, kind, locator))

    async def size(self, source: Source, digest: Digest) -> int:
        """How many bytes a blob has; raises as `check`."""
        found = await self._first(source, digest, lambda host: self._requests.size(host, source, digest))
        assert found is not None
        return found

    async def listing(
        self, source: Source, kind: Kind, locator: str, query: Mapping[str, str]
    ) -> tuple[Mapping[str, str], bytes]:
        """The headers and the body of `<kind>/<locator>` of a repository: its tags, the referrers of a manifest.

        Raises:
            Permanent, Retryable: as `head`.
        """
        found = await self._first(source, locator, lambda host: self._requests.listing(host, source, kind, locator, query))
        assert found is not None
        return found

    async def manifest(self, source: Source, locator: str) -> tuple[str, bytes]:
        """The content type and bytes of what a tag or digest names; checked against the digest where one is known.

        Raises:
            Permanent, Retryable: as `head`; and `digest.mismatch`, `MANIFEST_INVALID` for one that is too long.
        """
        found = await self._first(source, locator, lambda host: self._requests.manifest(host, source, locator))
        assert found is not None
        return found

    async def blob(
        self, source: Source, blob: Descriptor, start: int = 0, *, anew: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob from `start` on, unverified. A broken transfer is continued as long as it makes progress.

        The source may send more or fewer bytes than the descriptor says; whoever stores them finds out, and may ask anew.

        Args:
            anew: from the registry itself, past mirrors and caches.

        Raises:
            Permanent: `BLOB_UNKNOWN`, `layer.foreign`, `size.mismatch`, …
            Retryable: `registry.interrupted`, or as `head`.
        """
        hosts = self._hosts(source, blob.digest)[-1 if anew else 0 :]
        tried: list[tuple[Host, Failure]] = []
        position, continuations = start, 0
        while position < blob.size:
            before = position
            found: Failure | None = None
            try:
                async with aclosing(self._requests.part(hosts[0], source, blob, position, anew=anew)) as part:
                    async for chunk in part:
                        position += len(chunk)
                        yield chunk
            except Interrupted as exc:
                if position == before or continuations == _MOST_CONTINUATIONS:
                    why = self.secrets.told(str(exc))
                    what = f"{named_of(source, blob.digest)} broke off at byte {position} of {blob.size}: {why}"
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
                    raise explain_blob(blob, _combined(tried))

    async def destination(self, source: Source) -> Destination:
        """Where a repository is pushed to: a server whose table in `hosts.toml` names the capability `push`, else the registry
        itself. A mirror is not pushed to because it is there.

        Raises:
            Permanent: `hosts.invalid`, `credential.unknown`; Permanent, Retryable: as `head`.
        """
        self._credentials.check(source.credential)
        hosts = having(self._mirrors.of(source.registry), "push")
        if not hosts:
            what = f"no server that the hosts.toml of {source.registry} names has the capability 'push'"
            raise Permanent(what, code="hosts.invalid")
        return Destination(await self._requests.settled(hosts[0], source), source)

    # -- which server ----------------------------------------------------------------------------------------------------

    def _hosts(self, source: Source, locator: str) -> list[Host]:
        """Whom to ask, in this order: those that may answer and could be reached a moment ago."""
        capability: Capability = "pull" if ":" in locator else "resolve"
        hosts = having(self._mirrors.of(source.registry), capability)
        if not hosts:
            what = f"no server that the hosts.toml of {source.registry} names has the capability {capability!r}"
            raise Permanent(what, code="hosts.invalid")
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
        raise _combined(tried)

    def _missed(self, host: Host, found: Failure) -> None:
        """Leave a mirror alone for a while if it could not be reached."""
        if not host.mirror or not isinstance(found.__cause__, aiohttp.ClientConnectionError | TimeoutError | OSError):
            return
        if not self._mirrors.away(host):
            log.warning("the mirror %s is left out for %d s: %s", host.origin, REST, found)
        self._mirrors.missed(host)


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
        transport = Transport(connections, authorizer, settings, mirrors, secrets)
        yield Registry(Requests(transport, secrets), Uploads(transport, secrets, settings.patience), mirrors, credentials)


def _combined(tried: list[tuple[Host, Failure]]) -> Failure:
    """What the last server says, who is the one that must know, and what the others had said before."""
    found = tried[-1][1]
    if len(tried) == 1:
        return found
    message = f"{found}; asked before it: {'; '.join(f'{host.origin} ({why})' for host, why in tried[:-1])}"
    told: Failure
    if isinstance(found, Retryable):
        told = Retryable(message, code=found.code, after=found.after, concerns=found.concerns, brief=found.brief)
    else:
        told = Permanent(message, code=found.code, concerns=found.concerns)
    told.__cause__ = found
    return told

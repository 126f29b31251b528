"""One request to one server of a registry: its challenge answered, its redirects followed, its secrets kept from all others."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp
import yarl

from pullonce.errors import Permanent, Retryable
from schemas.events import Source
from services.fetcher.auth.authorizer import PULL, Access, Authorizer
from services.fetcher.auth.credentials import is_strangers
from services.fetcher.auth.redaction import Secrets
from services.fetcher.remote.answers import read_limited, registry_errors
from services.fetcher.remote.connections import Connections
from services.fetcher.remote.failures import redacted
from services.fetcher.remote.inward import ANYWHERE, Reach, kinds_of_host
from services.fetcher.remote.notices import Notices
from services.fetcher.remote.silence import Silence
from services.fetcher.servers.hosts import Host, is_host
from services.fetcher.servers.mirrors import Mirrors
from services.fetcher.settings import RegistrySettings

log = logging.getLogger(__name__)

ERROR_LIMIT = 64 << 10
"""Bytes of an answer that is no success which are read."""
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 10
_MOST_ASKED = 6
"""Attempts at one request: without a secret, with it, with a wider scope, and once more where what was remembered fails."""
_MIRROR_CONNECT = 5.0
"""Seconds that a mirror has to take a connection, where nothing else is said: there are others to ask."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request sends.

    Attributes:
        size: bytes of it.
        read: begins it anew, for each attempt.
        patience: seconds for an answer once all of it is sent: a registry may have much to hash, or to move. None: the usual.
    """

    size: int
    read: Callable[[], AsyncGenerator[bytes, None]]
    patience: float | None = None


class Transport:
    """Asks servers, each through the connections that it may use."""

    def __init__(
        self, connections: Connections, authorizer: Authorizer, settings: RegistrySettings, mirrors: Mirrors, secrets: Secrets
    ) -> None:
        self._connections = connections
        self._secrets = secrets
        self._authorizer = authorizer
        self._settings = settings
        self._mirrors = mirrors
        self._notices = Notices()
        self._silence = Silence(settings.patience)

    @asynccontextmanager
    async def answer(
        self,
        method: str,
        url: yarl.URL,
        host: Host,
        source: Source,
        headers: Mapping[str, str],
        judged: Callable[[bool, bool, Mapping[str, str]], Awaitable[None]] | None = None,
        *,
        body: Body | None = None,
        actions: str = PULL,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, answering challenges; whatever the server says in the end.

        Args:
            url: on the host, or where the host said that an upload goes on: that is asked without a secret, as storage is.
            source: what is asked for, under the name of the host: credentials belong to whom they are shown.
            judged: told whether what was asked for is given or refused, where the answer says either, whether a secret was
                shown for it, or anything else that `hosts.toml` gives this machine to show, and the headers of the answer.
                A token server that refuses the credential has refused it too.
            actions: what a token has to allow.

        Raises:
            Permanent, Retryable: there is no answer, or none to trust; `UNAUTHORIZED`: only this machine itself may ask there.
        """
        if is_strangers(source.credential):
            host = _for_strangers(host)
        shown = bool(host.headers or host.client)
        if not _same_place(url, yarl.URL(host.origin)):
            async with self._followed(method, url, host, dict(headers), body) as response:
                yield response
            return
        authorization = self._authorizer.authorization(Access(source, actions), host)
        await authorization.begin()

        async def door() -> list[str] | None:
            return await self._front(host)

        for attempt in range(_MOST_ASKED):
            sent = {**headers, "Authorization": authorization.header} if authorization.header else dict(headers)
            async with self._followed(method, url, host, sent, body) as response:
                at_home = _same_place(response.url, url)
                if at_home:
                    self._hear(host, source, response)
                if judged is not None and 200 <= response.status < 300:
                    await judged(True, authorization.secret or shown, response.headers)
                refused = at_home and response.status in (401, 403, 404)
                if not refused or attempt == _MOST_ASKED - 1:
                    yield response
                    return
                challenges = response.headers.getall("WWW-Authenticate", [])
                try:
                    again = await authorization.again(response.status, challenges, door)
                except Permanent as exc:
                    if judged is not None and not exc.code.startswith("credential."):  # there is none to be had here
                        await judged(False, authorization.secret or shown, response.headers)
                    raise
                if not again:
                    if judged is not None and response.status != 404:
                        await judged(False, authorization.secret or shown, response.headers)
                    yield response
                    return
                await self._drain(response)

    async def _front(self, host: Host) -> list[str] | None:
        """What the front page of a server asks for; None where it asks for nothing."""
        url = yarl.URL(f"{host.origin}{host.path}/")
        async with self._followed("GET", url, host, {}) as response:
            challenges = response.headers.getall("WWW-Authenticate", [])
            asks = response.status == 401 and _same_place(response.url, url)
            await self._drain(response)
        return challenges if asks else None

    async def _drain(self, response: aiohttp.ClientResponse) -> None:
        """Read the rest of a short answer, so that its connection can be used again; one that takes long is left."""
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with asyncio.timeout(2 * self._settings.patience):
                await read_limited(response, ERROR_LIMIT)

    def _hear(self, host: Host, source: Source, response: aiohttp.ClientResponse) -> None:
        headers = response.headers
        warnings = headers.getall("Warning", [])
        for line in self._notices.heard(host.name, source.credential, headers, warnings, self._secrets.clean):
            log.warning("%s", line)

    @asynccontextmanager
    async def _followed(
        self, method: str, url: yarl.URL, host: Host, headers: dict[str, str], body: Body | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request with its redirects. Authorization never leaves the registry: storage refuses it beside a signature."""
        home = by = yarl.URL(host.origin)
        reach = self._connections.home(host.name)
        if _same_place(url, home):
            by = url
        else:
            reach = self.check_redirect(home, url)
        for _ in range(_MOST_REDIRECTS + 1):
            with self._listening(url, by):
                response = await self._send(method, url, host, headers, reach, body, at_home=_same_place(url, home))
            try:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location:
                    yield response
                    return
                await self._drain(response)
                target = target_of(url, location)
            finally:
                response.release()
            if not _same_place(url, target):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
                reach = self.check_redirect(url, target)
            by, url = url, target
        raise Permanent(f"{redacted(str(url))} redirects more than {_MOST_REDIRECTS} times", code="registry.redirects")

    async def _send(
        self, method: str, url: yarl.URL, host: Host, headers: dict[str, str], reach: Reach, body: Body | None, *, at_home: bool
    ) -> aiohttp.ClientResponse:
        """What `hosts.toml` gives a host to send, or to be trusted by, is for that host alone."""
        ours = {name.lower() for name in headers}
        given = [(name, value) for name, value in host.headers if at_home and name.lower() not in ours]
        patience = self._settings.patience
        connect = (host.connect or (min(_MIRROR_CONNECT, patience) if host.mirror else patience)) if at_home else patience
        answer = patience if body is None else body.patience or patience
        timeout = aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=answer)
        length = [("Content-Length", str(body.size))] if body is not None else []
        proxy = self._settings.proxy(url.scheme, url.host or "", url.port)
        trusted = self._mirrors.context(host, elsewhere=not at_home) or True
        # A proxy is where the operator says, and looks names up itself.
        session = self._connections.session(ANYWHERE if proxy else reach)
        return await session.request(
            method,
            url,
            headers=[*given, *headers.items(), *length],
            data=body.read() if body is not None and body.size else None,
            proxy=proxy,
            ssl=trusted,
            timeout=timeout,
            allow_redirects=False,
        )

    @contextmanager
    def _listening(self, url: yarl.URL, by: yarl.URL) -> Iterator[None]:
        """A server that lets us wait in vain is known for it: the next ones are told so at once."""
        origin = str(url.origin())
        sent = time.monotonic()
        if self._silence.rests(origin, sent):
            why = f"{url.authority} has not answered lately"
            raise Retryable(f"{redacted(str(url))} is not asked: {why}", code="registry.unavailable") from TimeoutError(why)
        try:
            with registry_errors(lambda: redacted(str(url)), inward=lambda: _inward(by, url)):
                yield
        except Retryable as exc:
            if isinstance(exc.__cause__, TimeoutError):
                self._silence.missed(origin, sent, time.monotonic())
            else:
                self._silence.heard(origin, time.monotonic())
            raise
        except BaseException:  # whoever asked has left, or was not let there
            self._silence.let_go(origin, sent)
            raise
        self._silence.heard(origin, time.monotonic())

    def check_redirect(self, url: yarl.URL, target: yarl.URL) -> Reach:
        """A registry out there must not have us ask for anything within, nor for anything without encryption.

        Returns:
            Where the name of the target may lead, which is decided when it is connected to.
        """
        reach = self._connections.led(url.authority, url.host or "", target.authority)
        if not kinds_of_host(target.host or "") <= reach:
            raise _inward(url, target)
        if target.scheme == "https" or (target.scheme == "http" and url.scheme == "http"):
            return reach
        if target.scheme != "http" or not self._settings.plain(target.authority):
            what = f"{redacted(str(url))} redirects to {redacted(str(target))}, which is not encrypted"
            raise Permanent(what, code="registry.redirects")
        return reach


def _for_strangers(host: Host) -> Host:
    """A server as it is asked for who is not this machine's user: without what `hosts.toml` gives the machine to show there.

    Raises:
        Permanent: `UNAUTHORIZED`; it wants a certificate, and would answer to its lack as if it were not there.
    """
    if host.client:
        what = f"{host.name} is shown a certificate of this machine, which is not for clients that pull through it"
        raise Permanent(f"{what}; name a credential of the fetcher for them, or ask {host.name} itself", code="UNAUTHORIZED")
    return replace(host, headers=()) if host.headers else host


def _inward(url: yarl.URL, target: yarl.URL) -> Permanent:
    if url == target:
        what = f"{redacted(str(url))} has an address at which no registry may be"
        return Permanent(f"{what}; allow it by PULLONCE_INWARD_HOSTS", code="registry.inward")
    what = f"{redacted(str(url))} redirects to {redacted(str(target))}, which is a private address"
    return Permanent(f"{what}; where that is meant, allow it by PULLONCE_INWARD_HOSTS", code="registry.redirects")


def target_of(url: yarl.URL, location: str) -> yarl.URL:
    """Where a `Location` leads. A signed address is taken letter by letter.

    Raises:
        Permanent: `registry.redirects`; nowhere.
    """
    try:
        target = url.join(yarl.URL(location, encoded=True))
        target.origin()
        urlsplit(str(target))  # reads addresses of IPv6, which yarl leaves alone
        fits = bool(target.authority) and is_host(target.raw_host or "") and bool(target.host) and target.port != 0
    except ValueError:  # among them those of ports out of range, and of names that no encoding takes
        fits = False
    if not fits:
        raise Permanent(f"{redacted(str(url))} redirects to nowhere", code="registry.redirects")
    return target


def _same_place(one: yarl.URL, other: yarl.URL) -> bool:
    return one.origin() == other.origin()

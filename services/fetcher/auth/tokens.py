"""Bearer tokens from token servers: asked for once, shared, and kept until shortly before they expire.

Sources: distribution's token authentication specification; OAuth 2 (RFC 6749) for identity tokens.
"""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import aiohttp
import msgspec
import yarl

from pullonce.errors import Permanent
from pullonce.worker.stopwatch import spent_on
from services.fetcher.auth.challenge import check_realm, inward_realm
from services.fetcher.auth.credentials import is_strangers
from services.fetcher.auth.redaction import Secrets
from services.fetcher.auth.secret import Secret
from services.fetcher.remote.answers import read_limited, registry_errors
from services.fetcher.remote.connections import Connections
from services.fetcher.remote.failures import failure, redacted, retry_after
from services.fetcher.remote.inward import ANYWHERE
from services.fetcher.servers.hosts import Host
from services.fetcher.servers.mirrors import Mirrors
from services.fetcher.settings import RegistrySettings

_CLIENT_ID = "pullonce"
_LIFETIME = 60.0
_LONGEST_LIFETIME = 3600.0
_LONGEST_ANSWER = 1 << 20
_MOST = 1000
_MOST_REDIRECTS = 5


class _Answer(msgspec.Struct):
    token: str | None = ""
    access_token: str | None = ""
    refresh_token: str | None = ""
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class WantedToken:
    """What a token is good for, and all that its server is told to get it: whoever differs in any of it has another token.

    Attributes:
        registry: host and port of the server that asked for it. What it vouches for is shown to nobody else.
        credential: name of the credential that the request came with.
        secret: what the credential stood for; None: the token of anybody.
    """

    registry: str
    credential: str
    realm: str
    service: str
    scope: frozenset[str]
    secret: Secret | None


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    fresh_until: float
    """On the monotonic clock; a little before the registry would refuse it."""


class Tokens:
    """Tokens by what they are good for. Requests that need the same one at once share one request for it."""

    def __init__(self, connections: Connections, settings: RegistrySettings, mirrors: Mirrors, secrets: Secrets) -> None:
        self._connections = connections
        self._secrets = secrets
        self._settings = settings
        self._mirrors = mirrors
        self._tokens: dict[WantedToken, _Token] = {}
        self._locks: defaultdict[WantedToken, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, wanted: WantedToken, host: Host) -> str:
        """A token that is fresh.

        Args:
            host: the server that asked for it.

        Raises:
            Permanent: `realm.refused`, `UNAUTHORIZED`…; Retryable: the token server cannot be reached, or is overloaded.
        """
        with spent_on("token"):
            async with self._locks[wanted]:
                token = self._tokens.get(wanted)
                if token is None or token.fresh_until <= time.monotonic():
                    token = await self._request(wanted, host)
                    self._tokens[wanted] = token
        if len(self._locks) > _MOST:
            self._forget_expired()
        return token.value

    def forget(self, value: str) -> None:
        """A registry refused this token."""
        for wanted in [wanted for wanted, token in self._tokens.items() if token.value == value]:
            del self._tokens[wanted]

    def _forget_expired(self) -> None:
        now = time.monotonic()
        self._tokens = {wanted: token for wanted, token in self._tokens.items() if token.fresh_until > now}
        while len(self._tokens) > _MOST // 2:
            del self._tokens[next(iter(self._tokens))]
        for wanted in [wanted for wanted, lock in self._locks.items() if wanted not in self._tokens and not lock.locked()]:
            del self._locks[wanted]

    async def _request(self, wanted: WantedToken, host: Host) -> _Token:
        asked_at = time.monotonic()
        status, body, after = await self._ask(wanted, host)
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            answer = _Answer()
        given = filter(None, (answer.token, answer.access_token, answer.refresh_token))
        self._secrets.keep(*given, strangers=is_strangers(wanted.credential))
        if not 200 <= status < 300:
            what = f"a token for {wanted.registry}"
            raise failure("token", what, status, body, after=after, clean=self._secrets.clean)
        value = answer.token or answer.access_token
        if not value or not (value.isascii() and value.isprintable()):
            server = redacted(wanted.realm)
            raise Permanent(f"the token server {server} answers without a token", code="UNAUTHORIZED", concerns="source")
        lifetime = min(max(answer.expires_in or _LIFETIME, _LIFETIME), _LONGEST_LIFETIME)
        return _Token(value, asked_at + 0.9 * lifetime)

    async def _ask(self, wanted: WantedToken, host: Host) -> tuple[int, bytes, float | None]:
        """GET with the password, as docker does; POST to trade an identity token. Every hop is checked as the realm is."""
        url, secret = _address(wanted), wanted.secret
        form = _form(wanted, secret.identity_token) if secret and secret.identity_token else None
        headers = {"Authorization": f"Basic {secret.basic}"} if secret and not form else {}
        by = yarl.URL(host.origin)
        for _ in range(_MOST_REDIRECTS + 1):
            reach = self._connections.led(by.authority, by.host or "", url.authority)
            at_home = url.host == yarl.URL(host.origin).host
            if at_home:
                reach = reach | self._connections.home(host.name)
            plain = self._settings.plain(url.authority) or self._settings.listed(host.name)
            check_realm(str(url), wanted.registry, plain=plain, reach=reach)
            trusted = self._mirrors.context(host, elsewhere=not at_home) or True
            proxy = self._settings.proxy(url.scheme, url.host or "", url.port)
            session = self._connections.session(ANYWHERE if proxy else reach)
            inward = partial(inward_realm, str(url), wanted.registry)
            with registry_errors(f"the token server {redacted(str(url))}", inward=inward):
                method = "POST" if form else "GET"
                asked = session.request(
                    method, url, data=form, headers=headers, proxy=proxy, ssl=trusted, allow_redirects=False
                )
                async with asked as response:
                    body = await read_limited(response, _LONGEST_ANSWER)
                    target = _redirect(response, url, body=form is not None)
                    if target is None:
                        return response.status, body, retry_after(response.headers.get("Retry-After"), time.time())
            if target.origin() != url.origin():
                headers = {}
            by, url = url, target
        raise Permanent(f"the token server {redacted(wanted.realm)} redirects without end", code="registry.redirects")


def _address(wanted: WantedToken) -> yarl.URL:
    try:
        url = yarl.URL(wanted.realm)
        url.origin()
    except ValueError:
        what = f"{wanted.registry} names a malformed token server"
        raise Permanent(what, code="realm.refused", concerns="source") from None
    if wanted.secret and wanted.secret.identity_token:
        return url
    about = [("service", wanted.service)] if wanted.service else []
    return url.extend_query([*about, ("client_id", _CLIENT_ID), *(("scope", name) for name in sorted(wanted.scope))])


def _form(wanted: WantedToken, identity_token: str) -> dict[str, str]:
    about = {"service": wanted.service} if wanted.service else {}
    return about | {
        "grant_type": "refresh_token",
        "refresh_token": identity_token,
        "client_id": _CLIENT_ID,
        "scope": " ".join(sorted(wanted.scope)),
    }


def _redirect(response: aiohttp.ClientResponse, url: yarl.URL, *, body: bool) -> yarl.URL | None:
    """Where a token server sends us; None where its answer stands. What a form holds is sent on to nobody else."""
    location = response.headers.get("Location")
    if not location or response.status not in ((307, 308) if body else (301, 302, 303, 307, 308)):
        return None
    try:
        target = url.join(yarl.URL(location))
        other = target.origin() != url.origin()
    except ValueError:
        raise Permanent(f"the token server {redacted(str(url))} redirects to nowhere", code="registry.redirects") from None
    if body and other:
        what = f"the token server {redacted(str(url))} sends an identity token on to {redacted(str(target))}"
        raise Permanent(f"{what}; it is shown to nobody else", code="realm.refused")
    return target

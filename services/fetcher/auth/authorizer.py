"""Authorization for a registry: none, basic, or a bearer token from the registry's token server.

Source: distribution's token authentication specification; OAuth 2 for identity tokens. A registry is asked without a secret
first; only what its challenge asks for is sent, and only to a token server that may be trusted with it.
"""

import asyncio
import base64
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
import msgspec
import yarl

from pullonce.errors import Permanent
from pullonce.worker.stopwatch import spent_on
from schemas.events import Source
from services.fetcher.auth.challenge import Challenge, check_realm, parse_challenges, pick
from services.fetcher.auth.credentials import Credentials, Secret
from services.fetcher.remote.answers import read_limited, registry_errors
from services.fetcher.remote.failures import failure, redacted, retry_after
from services.fetcher.servers.hosts import Host
from services.fetcher.servers.mirrors import Mirrors
from services.fetcher.settings import RegistrySettings

_CLIENT_ID = "pullonce"
_LIFETIME = 60.0
_LONGEST_ANSWER = 1 << 20


class _TokenAnswer(msgspec.Struct):
    token: str | None = ""
    access_token: str | None = ""
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    fresh_until: float
    """On the monotonic clock; a little before the registry would refuse it."""


@dataclass(frozen=True, slots=True)
class _Door:
    """One server as one credential sees it."""

    registry: str
    credential: str


class Authorizer:
    """Knows what each server asked for, and keeps tokens until shortly before they expire.

    Requests that need the same token at once share one request for it.
    """

    def __init__(
        self, session: aiohttp.ClientSession, credentials: Credentials, settings: RegistrySettings, mirrors: Mirrors
    ) -> None:
        self._session = session
        self._credentials = credentials
        self._settings = settings
        self._mirrors = mirrors
        self._asked: dict[_Door, Challenge] = {}
        self._scopes: dict[Source, frozenset[str]] = {}
        self._tokens: dict[tuple[_Door, frozenset[str]], _Token] = {}
        self._locks: defaultdict[tuple[_Door, frozenset[str]], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def header(self, source: Source, host: Host) -> str | None:
        """The `Authorization` to send now; None while the server has not asked for any.

        A mirror for which a named credential holds nothing is asked without a secret: it may want none.

        Args:
            source: under the name of the host.

        Raises:
            Permanent, Retryable: the credential or the token cannot be had.
        """
        door = _Door(source.registry, source.credential)
        challenge = self._asked.get(door)
        if challenge is None:
            return None
        needed = not host.mirror
        secret = await self._credentials.find(source.registry, source.repository, source.credential, needed=needed)
        if challenge.scheme == "basic":
            return _basic(secret) if secret else None
        if secret and secret.registry_token:
            return f"Bearer {secret.registry_token}"
        return f"Bearer {await self._token(door, host, challenge, self._scope(source), secret)}"

    async def answer(self, source: Source, host: Host, headers: Iterable[str], sent: str | None, *, again: bool) -> str | None:
        """React to a 401: the `Authorization` to try next, or None if there is nothing else to try.

        Args:
            headers: the `WWW-Authenticate` headers.
            sent: the refused `Authorization`.
            again: a challenge of this very request was answered before, so only a wider scope can help.
        """
        challenge = pick(parse_challenges(headers))
        if challenge is None:
            return None
        door = _Door(source.registry, source.credential)
        before = self._scopes.get(source, frozenset())
        self._scopes[source] = before | challenge.scopes
        if again and self._scopes[source] == before:
            return None
        self._asked[door] = challenge
        token = self._tokens.get((door, self._scope(source)))
        if token and sent == f"Bearer {token.value}":
            del self._tokens[door, self._scope(source)]
        header = await self.header(source, host)
        return header if header != sent else None

    def _scope(self, source: Source) -> frozenset[str]:
        """All that challenges for this repository ever named; until there was one, the customary scope."""
        return self._scopes.get(source) or frozenset((f"repository:{source.repository}:pull",))

    async def _token(self, door: _Door, host: Host, challenge: Challenge, scope: frozenset[str], secret: Secret | None) -> str:
        key = (door, scope)
        with spent_on("token"):
            async with self._locks[key]:
                token = self._tokens.get(key)
                if token is None or token.fresh_until <= time.monotonic():
                    token = await self._request_token(door, host, challenge, scope, secret)
                    self._tokens[key] = token
        if len(self._tokens) > 1000:
            self._forget_expired()
        return token.value

    def _forget_expired(self) -> None:
        now = time.monotonic()
        self._tokens = {key: token for key, token in self._tokens.items() if token.fresh_until > now}
        for key in [key for key, lock in self._locks.items() if key not in self._tokens and not lock.locked()]:
            del self._locks[key]

    async def _request_token(
        self, door: _Door, host: Host, challenge: Challenge, scope: frozenset[str], secret: Secret | None
    ) -> _Token:
        check_realm(challenge.realm, door.registry, plain=host.plain)
        asked_at = time.monotonic()
        status, body, after = await self._ask(host, challenge, sorted(scope), secret)
        if status != 200:
            raise failure("token", f"a token for {door.registry}", status, body, after=after)
        try:
            answer = msgspec.json.decode(body, type=_TokenAnswer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            answer = _TokenAnswer()
        value = answer.token or answer.access_token
        if not value or not value.isprintable():
            server = redacted(challenge.realm)
            raise Permanent(f"the token server {server} answers without a token", code="UNAUTHORIZED", concerns="source")
        lifetime = max(answer.expires_in or _LIFETIME, _LIFETIME)
        return _Token(value, asked_at + 0.9 * lifetime)

    async def _ask(
        self, host: Host, challenge: Challenge, scope: list[str], secret: Secret | None
    ) -> tuple[int, bytes, float | None]:
        """GET with the password, as docker does; POST to trade an identity token."""
        try:
            url = yarl.URL(challenge.realm)
        except ValueError:
            raise Permanent("the registry names a malformed token server", code="realm.refused") from None
        proxy = self._settings.proxy(url.scheme, url.host or "")
        elsewhere = url.host != yarl.URL(host.origin).host
        trusted = self._mirrors.context(host, elsewhere=elsewhere) or True
        about = {"service": challenge.service} if challenge.service else {}
        with registry_errors(f"the token server {redacted(challenge.realm)}"):
            if secret and secret.identity_token:
                form = {
                    **about,
                    "grant_type": "refresh_token",
                    "refresh_token": secret.identity_token,
                    "client_id": _CLIENT_ID,
                    "scope": " ".join(scope),
                }
                request = self._session.post(url, data=form, proxy=proxy, ssl=trusted, allow_redirects=False)
            else:
                query = [*about.items(), ("client_id", _CLIENT_ID), *(("scope", name) for name in scope)]
                headers = {"Authorization": _basic(secret)} if secret else {}
                url = url.extend_query(query)
                request = self._session.get(url, headers=headers, proxy=proxy, ssl=trusted, allow_redirects=False)
            async with request as response:
                body = await read_limited(response, _LONGEST_ANSWER)
                return response.status, body, retry_after(response.headers.get("Retry-After"), time.time())


def _basic(secret: Secret) -> str:
    pair = f"{secret.username}:{secret.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"

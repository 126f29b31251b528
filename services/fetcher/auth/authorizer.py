"""Authorization for a registry: none, basic, or a bearer token from the registry's token server.

A registry is asked without a secret first; only what its challenge asks for is sent, and only to a token server that may be
trusted with it. What a challenge said is remembered for the repository that it was said of, and for nothing else: on one host
each repository may have a realm of its own, or none. What is remembered is doubted before anything fails by it: a failure at a
remembered realm, or a refusal of what was remembered, leads back to asking.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from pullonce.errors import Permanent, Retryable
from schemas.events import Source
from services.fetcher.auth.challenge import Challenge, parse_challenges, pick
from services.fetcher.auth.credentials import Credentials
from services.fetcher.auth.secret import Secret
from services.fetcher.auth.tokens import Tokens, WantedToken
from services.fetcher.remembered import Remembered
from services.fetcher.servers.hosts import Host

_MOST = 4096
"""Repositories whose challenge is remembered."""
_QUIET = 60.0
"""Seconds for which a registry whose front page asks for nothing is not asked for its front page again."""

_REFUSED = ("UNAUTHORIZED", "DENIED")

PULL, PUSH = "pull", "pull,push"
"""What a token has to allow, as token servers call it."""

AskFront = Callable[[], Awaitable[Iterable[str] | None]]
"""Asks a registry's front page (`/v2/`): its challenges, or None where it asks for nothing."""


@dataclass(frozen=True, slots=True)
class Access:
    """What somebody wants of a repository.

    Attributes:
        source: the repository under the name of the host: credentials belong to whom they are shown.
        actions: `PULL` or `PUSH`. What was learnt of one says nothing of the other: who may pull need not be let push.
    """

    source: Source
    actions: str = PULL


class Authorizer:
    """Knows what each repository's server asked for."""

    def __init__(self, tokens: Tokens, credentials: Credentials) -> None:
        self._tokens = tokens
        self._credentials = credentials
        self._asked: Remembered[Access, Challenge] = Remembered(_MOST)
        self._scopes: Remembered[Access, frozenset[str]] = Remembered(_MOST)
        self._quiet: Remembered[tuple[str, str], bool] = Remembered(_MOST, seconds=_QUIET)

    def authorization(self, access: Access, host: Host) -> "Authorization":
        """One request's way past the challenges of a server."""
        return Authorization(self, access, host)

    async def remembered(self, access: Access, host: Host) -> "ShownSecret | None":
        """What to begin with; None while the server has not asked for anything.

        Raises:
            Permanent, Retryable: the credential cannot be had.
        """
        challenge = self._asked.get(access)
        if challenge is None:
            return None
        secret = await self._secret(access.source, host)
        try:
            return await self._made(challenge, access, host, secret)
        except (Permanent, Retryable):
            self.forget(access)
            return None

    async def answer(self, access: Access, host: Host, challenge: Challenge, since: float) -> "ShownSecret | None":
        """What a challenge asks for, and its memory; None where there is nothing to show.

        Args:
            since: when the request began, on the monotonic clock.

        Raises:
            Permanent, Retryable: the credential or the token cannot be had.
        """
        source = access.source
        self._asked.put(access, challenge)
        try:
            return await self._made(challenge, access, host, await self._secret(source, host))
        except (Permanent, Retryable) as exc:
            self.forget(access)
            # A helper may have a fresher secret than the one that it gave and the token server refuses.
            if not (exc.code in _REFUSED and self._credentials.forget(source.registry, since)):
                raise
        self._asked.put(access, challenge)
        return await self._made(challenge, access, host, await self._secret(source, host))

    def widen(self, access: Access, scopes: frozenset[str]) -> bool:
        """Add what a challenge names to what tokens for a repository are asked for; whether that is more than before."""
        before = self._scopes.get(access) or frozenset()
        self._scopes.put(access, before | scopes)
        return not scopes <= before

    def forget(self, access: Access) -> None:
        """What was remembered of a repository is not true any more."""
        self._asked.drop(access)
        self._scopes.drop(access)

    def forget_token(self, sent: str) -> None:
        """An `Authorization` was refused: if it was a token, it is not used again."""
        self._tokens.forget(sent.removeprefix("Bearer "))

    def refused(self, source: Source, since: float) -> bool:
        """A secret that was known at `since` was refused; whether asking for it again may bring another one."""
        return self._credentials.forget(source.registry, since)

    async def front(self, source: Source, host: Host, door: AskFront) -> Challenge | None:
        """What the front page of a registry asks for; None where it asks for nothing, or there is no secret to show.

        Some registries hide what anonymous may not see behind 404, 403 or a bare 401, and challenge at their front page only.
        """
        place = (source.registry, source.credential)
        if self._quiet.get(place) or await self._secret(source, host) is None:
            return None
        headers = await door()
        challenge = pick(parse_challenges(headers)) if headers is not None else None
        if challenge is None:
            self._quiet.put(place, True)
        return challenge

    async def _secret(self, source: Source, host: Host) -> Secret | None:
        """A mirror for which a named credential holds nothing is asked without a secret: it may want none."""
        needed = not host.mirror
        return await self._credentials.find(source.registry, source.repository, source.credential, needed=needed)

    async def _made(self, challenge: Challenge, access: Access, host: Host, secret: Secret | None) -> "ShownSecret | None":
        if challenge.scheme == "basic":
            return ShownSecret(f"Basic {secret.basic}", secret=True) if secret else None
        if secret and secret.registry_token:
            return ShownSecret(f"Bearer {secret.registry_token}", secret=True)
        # Until a challenge names one, the customary scope.
        source = access.source
        scope = self._scopes.get(access) or frozenset((f"repository:{source.repository}:{access.actions}",))
        wanted = WantedToken(source.registry, source.credential, challenge.realm, challenge.service, scope, secret)
        return ShownSecret(f"Bearer {await self._tokens.get(wanted, host)}", secret=secret is not None)


@dataclass(frozen=True, slots=True)
class ShownSecret:
    """An `Authorization` header, and whether a secret stands behind it or anybody would be given it."""

    header: str
    secret: bool


class Authorization:
    """One request's way past the challenges of a server. Made by `Authorizer.authorization`.

    Attributes:
        header: to send with the next attempt; None: nothing.
        secret: whether a secret stands behind it.
    """

    def __init__(self, authorizer: Authorizer, access: Access, host: Host) -> None:
        self._authorizer = authorizer
        self._access = access
        self._host = host
        self._begun = time.monotonic()
        self._challenged = False
        self._doubted = False
        self._knocked = False
        self._shown: ShownSecret | None = None

    @property
    def header(self) -> str | None:
        return self._shown.header if self._shown else None

    @property
    def secret(self) -> bool:
        return self._shown is not None and self._shown.secret

    async def begin(self) -> None:
        """Look for what may be sent at once."""
        self._shown = await self._authorizer.remembered(self._access, self._host)

    async def again(self, status: int, headers: Iterable[str], door: AskFront) -> bool:
        """Take in a refusal: whether to ask once more, with what is now to be sent.

        Args:
            headers: the `WWW-Authenticate` headers.
            door: asks the front page of this server.

        Raises:
            Permanent, Retryable: the credential or the token cannot be had.
        """
        challenge = pick(parse_challenges(headers)) if status == 401 else None
        if challenge is not None and await self._answer(challenge):
            return True
        if self.header is not None:
            return status in (401, 403) and self._doubt()
        if self._knocked or status not in (401, 403, 404) or challenge is not None:
            return False
        self._knocked = True
        challenge = await self._authorizer.front(self._access.source, self._host, door)
        return challenge is not None and await self._answer(challenge)

    async def _answer(self, challenge: Challenge) -> bool:
        """Whether there is something to show to a challenge that was not refused just now."""
        wider = self._authorizer.widen(self._access, challenge.scopes)
        if self._challenged and not wider:
            return False
        self._challenged = True
        sent = self.header
        if sent:
            self._authorizer.forget_token(sent)
        made = await self._authorizer.answer(self._access, self._host, challenge, self._begun)
        if made is None or made.header == sent:
            return False
        self._shown = made
        return True

    def _doubt(self) -> bool:
        """Ask from the beginning, once: what was sent was remembered, or a helper may know a fresher secret."""
        remembered = not self._challenged
        self._authorizer.forget(self._access)
        if self.header:
            self._authorizer.forget_token(self.header)
        fresher = self._authorizer.refused(self._access.source, self._begun)
        if self._doubted or not (remembered or fresher):
            return False
        self._doubted, self._challenged, self._shown = True, False, None
        return True

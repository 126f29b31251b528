"""All answers as one application, and who is answered.

Source: distribution-spec 1.1, "Pull", "Endpoints".
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from aiohttp import web

from pullonce.errors import PullonceError
from pullonce.hostnames import is_named_plainly
from services.gateway.mirror.blobs import Blobs, Parts
from services.gateway.mirror.guests import (
    PASSWORD_CHALLENGE,
    Login,
    is_browser,
    is_fetcher,
    is_password,
    login_of,
)
from services.gateway.mirror.listings import Listings
from services.gateway.mirror.manifests import Manifests
from services.gateway.mirror.names import NoSuchThing, Wanted, wanted
from services.gateway.mirror.refusals import Refusal, refusal_of, response_of
from services.gateway.mirror.sending import PATIENCE

log = logging.getLogger(__name__)

Hold = Callable[[str, Login], AbstractAsyncContextManager[str]]
"""Keeps what a client showed for a registry while it is needed, and names the credential by which pulls are made with it."""
Answer = Callable[[web.Request, Wanted, str], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Rules:
    """Who is answered, and how names are read.

    Attributes:
        default: the registry that is meant where nothing names one.
        credential: by which pulls are made for who shows nothing; empty: the login files of this machine.
        password: of this mirror; empty: none is asked for, and a login that is shown is the registry's.
        any_host: the `Host` header may say anything: nobody else's page can reach this listener, or a password is asked for.
    """

    default: str
    credential: str
    password: str
    any_host: bool
    hold: Hold


class Routes:
    """The mirror's answers.

    Args:
        own: addresses of the mirror itself, `host:port`: it is no registry to ask.
    """

    def __init__(self, parts: Parts, rules: Rules, own: Callable[[], set[str]]) -> None:
        self._parts = parts
        self._rules = rules
        self._own = own
        manifests, blobs, listings = Manifests(parts), Blobs(parts), Listings(parts.questions)
        self._answers: dict[str, Answer] = {
            "manifests": manifests.answer, "blobs": blobs.answer, "tags": listings.tags, "referrers": listings.referrers,
        }  # fmt: skip

    def application(self) -> web.Application:
        """All of it, for aiohttp."""
        application = web.Application(client_max_size=1)
        application.router.add_route("*", "/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind, login = "", login_of(request.headers.get("Authorization", ""))
        try:
            self._guard(request, login)
            if request.method not in ("GET", "HEAD"):
                raise Refusal("a mirror is there to pull: push to the registry itself", "UNSUPPORTED", 405)
            if request.path in ("/v2", "/v2/"):
                return self._front(request)
            asked = wanted(request.path, request.query.get("ns", ""), self._rules.default)
            kind = asked.kind
            if asked.registry in self._own():
                raise Refusal(f"{asked.registry} is this mirror itself", "NAME_UNKNOWN")
            async with self._credential(asked, login) as credential:
                response = await self._answers[kind](request, asked, credential)
                if isinstance(response, web.Response):  # short ones; who takes nothing is let go
                    async with asyncio.timeout(PATIENCE):
                        await response.prepare(request)
                        await response.write_eof()
        except NoSuchThing as exc:
            response = self._refused(request, Refusal(str(exc), exc.code), login)
        except PullonceError as exc:
            response = self._refused(request, refusal_of(exc), login)
        self._parts.counts.requests[kind or "other", response.status] += 1
        return response

    def _front(self, request: web.Request) -> web.Response:
        headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
        return web.Response(body=b"{}", content_type="application/json", headers=headers)

    def _guard(self, request: web.Request, login: Login | None) -> None:
        if is_browser(request.headers):
            raise Refusal("the mirror answers no page of a browser", "DENIED", 403)
        if not self._rules.any_host and not is_named_plainly(request.host):
            raise Refusal("without a password the mirror answers only to an address or localhost", "DENIED", 403)
        if not self._rules.password and is_fetcher(request.headers):
            raise Refusal("pullonce is no mirror for itself", "NAME_UNKNOWN")
        if self._rules.password and not is_password(login, self._rules.password):
            raise Refusal("the password of the mirror is asked for", "UNAUTHORIZED", 401)

    def _credential(self, asked: Wanted, login: Login | None) -> AbstractAsyncContextManager[str]:
        """By which a pull is made: what the client showed, or what those have who show nothing."""
        if login is None or self._rules.password or asked.guessed:
            return nullcontext(self._rules.credential)
        return self._rules.hold(asked.registry, login)

    def _refused(self, request: web.Request, refusal: Refusal, login: Login | None) -> web.Response:
        response = response_of(refusal, anonymous=login is None and not self._rules.password)
        if response.status == 401 and self._rules.password:
            response.headers["WWW-Authenticate"] = PASSWORD_CHALLENGE
        if response.status == 405:
            response.headers["Allow"] = "GET, HEAD"
        log.info(
            "not answered: %s", refusal,
            extra={"method": request.method, "path": request.path, "status": response.status, "code": refusal.code},
        )  # fmt: skip
        return response

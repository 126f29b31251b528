"""Registries that ask who we are: what is sent to whom, how often, and what is never sent."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.errors import Permanent
from tests.integration.fetcher.conftest import Opened
from tests.support.faulty import FaultyRegistry, answers
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer

IMAGE = image([layer(tar_of({"file": b"content"}))])
SCOPE = "repository:app:pull"
PASSWORD = "open-sesame"
BASIC = "Basic " + base64.b64encode(f"ali:{PASSWORD}".encode()).decode()
# bcrypt of the password above, which htpasswd files need.
HTPASSWD = "ali:$2y$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO"


class TokenDesk:
    """A token server, and the guard of a registry that believes it alone.

    Attributes:
        valid: tokens that the registry accepts now, with the scope each was given for.
        given: the parameters of every token request, oldest first, with its `Authorization` under that name.
    """

    def __init__(self, *, password: str = "", needs: str = SCOPE) -> None:
        self.valid: dict[str, str] = {}
        self.given: list[dict[str, str]] = []
        self._password = password
        self.needs = needs

    def change(self, password: str) -> None:
        """Another password from now on; tokens that were given are worth nothing."""
        self._password = password
        self.valid.clear()

    async def __call__(self, request: web.Request) -> web.Response | None:
        if request.path == "/token":
            return await self._hand_out(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.needs in self.valid.get(token, "").split():
            return None
        why = ',error="insufficient_scope"' if token in self.valid else ""
        challenge = f'Bearer realm="http://{request.host}/token",service="the registry",scope="{self.needs}"{why}'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async def _hand_out(self, request: web.Request) -> web.Response:
        asked = {key: " ".join(request.query.getall(key)) for key in request.query} | {
            key: str(value) for key, value in (await request.post()).items()
        }
        authorization = request.headers.get("Authorization", "")
        self.given.append({**asked, "authorization": authorization, "method": request.method})
        right = base64.b64encode(f"ali:{self._password}".encode()).decode()
        if self._password and authorization != f"Basic {right}" and asked.get("refresh_token") != self._password:
            return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}, status=401)
        token = f"token-{len(self.given)}"
        self.valid[token] = asked["scope"]
        return web.json_response({"token": token, "expires_in": 300})


def login(path: Path, registry: str, **entry: str) -> Path:
    """Write what `docker login` leaves behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {registry: entry or {"auth": base64.b64encode(f"ali:{PASSWORD}".encode()).decode()}}}))
    return path


async def test_an_anonymous_token_is_asked_for_once(fetcher: Opened) -> None:
    desk = TokenDesk()
    async with FaultyRegistry(IMAGE, guard=desk) as registry, fetcher() as f:
        await f.pull(registry.reference)
        given = [{"service": "the registry", "scope": SCOPE, "client_id": "pullonce", "authorization": "", "method": "GET"}]
        assert desk.given == given
        assert [request.method for request in registry.seen] == ["HEAD", "GET", "HEAD", "GET", "GET", "GET"]


async def test_those_who_need_a_token_at_once_share_one(fetcher: Opened) -> None:
    desk = TokenDesk()
    async with FaultyRegistry(IMAGE, guard=desk) as registry, fetcher() as f:
        await asyncio.gather(*(f.resolve(registry.reference) for _ in range(10)))
        assert len(desk.given) == 1


async def test_a_token_that_was_revoked_is_replaced(fetcher: Opened) -> None:
    desk = TokenDesk()
    async with FaultyRegistry(IMAGE, guard=desk) as registry, fetcher() as f:
        await f.resolve(registry.reference)
        desk.valid.clear()
        await f.resolve(registry.reference)
        assert len(desk.given) == 2


async def test_a_wider_scope_is_asked_for_when_the_registry_names_it(fetcher: Opened) -> None:
    desk = TokenDesk(needs="repository:base:pull")
    async with FaultyRegistry(IMAGE, guard=desk) as registry, fetcher() as f:
        await f.resolve(registry.reference)
        assert desk.given[-1]["scope"] == "repository:base:pull"
        desk.needs = SCOPE
        await f.resolve(registry.reference)
        assert desk.given[-1]["scope"] == "repository:app:pull repository:base:pull"
        assert len(desk.given) == 2


async def test_a_password_goes_to_the_token_server_only(
    fetcher: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    desk = TokenDesk(password=PASSWORD)
    async with FaultyRegistry(IMAGE, guard=desk) as registry:
        async with fetcher(configs=(login(tmp_path / "config.json", registry.host),)) as f:
            await f.pull(registry.reference)
        assert desk.given[0]["authorization"].startswith("Basic ") and len(desk.given) == 1
        for request in registry.asked("/v2/"):
            assert not request.headers.get("Authorization", "").startswith("Basic")
    assert PASSWORD not in caplog.text and "token-1" not in caplog.text


async def test_a_wrong_password_fails_those_who_use_it(fetcher: Opened, tmp_path: Path) -> None:
    desk = TokenDesk(password="another")
    async with FaultyRegistry(IMAGE, guard=desk) as registry:
        login(tmp_path / "credentials" / "ci.json", registry.host)
        async with fetcher() as f:
            with pytest.raises(Permanent, match="401: wrong password") as failed:
                await f.resolve(registry.reference, credential="ci")
            assert (failed.value.code, failed.value.concerns) == ("UNAUTHORIZED", "credential")
            assert PASSWORD not in str(failed.value)
            assert len(desk.given) == 1


async def test_an_identity_token_is_traded(fetcher: Opened, tmp_path: Path) -> None:
    desk = TokenDesk(password="refresh-me")
    async with FaultyRegistry(IMAGE, guard=desk) as registry:
        config = login(tmp_path / "config.json", registry.host, identitytoken="refresh-me")
        async with fetcher(configs=(config,)) as f:
            await f.resolve(registry.reference)
    assert desk.given[0] | {"client_id": "pullonce"} == {
        "method": "POST",
        "grant_type": "refresh_token",
        "refresh_token": "refresh-me",
        "service": "the registry",
        "scope": SCOPE,
        "client_id": "pullonce",
        "authorization": "",
    }


async def test_credentials_are_told_apart_by_name(fetcher: Opened, tmp_path: Path) -> None:
    desk = TokenDesk(password=PASSWORD)
    async with FaultyRegistry(IMAGE, guard=desk) as registry:
        login(tmp_path / "credentials" / "ci.json", registry.host)
        login(tmp_path / "credentials" / "elsewhere.json", "registry.example.com")
        async with fetcher() as f:
            assert (await f.resolve(registry.reference, credential="ci")).source.credential == "ci"
            with pytest.raises(Permanent, match="wrong password"):
                await f.resolve(registry.reference)
            for name in ("nobody", "elsewhere"):
                with pytest.raises(Permanent, match=f"knows no credential '{name}'") as failed:
                    await f.resolve(registry.reference, credential=name)
                assert (failed.value.code, failed.value.concerns) == ("credential.unknown", "credential")


async def test_a_refused_request_that_no_secret_can_help(fetcher: Opened) -> None:
    async def refuses(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": "Negotiate"})

    async with FaultyRegistry(IMAGE, guard=refuses) as registry, fetcher() as f:
        with pytest.raises(Permanent, match="does not exist, or the credential may not read it") as failed:
            await f.resolve(registry.reference)
        assert failed.value.code == "UNAUTHORIZED"
        assert len(registry.seen) == 2


async def test_basic_authentication_of_a_real_registry(fetcher: Opened, tmp_path: Path) -> None:
    server = RegistryServer(tmp_path / "registry", htpasswd=HTPASSWD).start()
    try:
        async with fetcher(configs=(login(tmp_path / "config.json", server.host),)) as f:
            with pytest.raises(Permanent) as failed:
                await f.resolve(f"{server.host}/app:1")
            assert failed.value.code == "MANIFEST_UNKNOWN"
            statuses = [request.status for request in server.requests()]
            assert statuses == [401, 404, 404]
        async with fetcher(configs=(login(tmp_path / "wrong.json", server.host, username="ali", password="no"),)) as f:
            with pytest.raises(Permanent) as failed:
                await f.resolve(f"{server.host}/app:1")
            assert (failed.value.code, failed.value.concerns) == ("UNAUTHORIZED", "credential")
    finally:
        server.stop()


class Realms:
    """One host, a realm for each repository: what `challenges` says of it, and whether that token server gives tokens."""

    def __init__(self, **challenges: str) -> None:
        self.challenges = challenges
        self.tokens: list[str] = []
        self.broken: set[str] = set()

    async def __call__(self, request: web.Request) -> web.Response | None:
        repository = request.path.split("/")[2]
        if repository == "tokens":
            realm = request.path.split("/")[3]
            self.tokens.append(realm)
            if realm in self.broken:
                return web.Response(status=403)
            return web.json_response({"token": f"for-{realm}"})
        challenge = self.challenges.get(repository, "")
        if not challenge:
            return web.Response(status=401) if "Authorization" in request.headers else None
        scheme, _, realm = challenge.partition(" ")
        right = BASIC if scheme == "Basic" else f"Bearer for-{realm}"
        if request.headers.get("Authorization") == right:
            return None
        told = f'Basic realm="{realm}"' if scheme == "Basic" else f'Bearer realm="http://{request.host}/v2/tokens/{realm}"'
        return web.Response(status=401, headers={"WWW-Authenticate": told})


async def test_what_one_repository_asks_for_is_not_believed_of_another(fetcher: Opened, tmp_path: Path) -> None:
    realms = Realms(a="Bearer one", b="", c="Bearer two", d="Basic here", e="")
    realms.broken.add("one")
    async with (
        FaultyRegistry(IMAGE, guard=realms) as registry,
        fetcher(configs=(login(tmp_path / "config.json", registry.host),)) as f,
    ):
        with pytest.raises(Permanent, match="403"):
            await f.resolve(f"{registry.host}/a:1")
        for repository in "bcdedcb":
            await f.resolve(f"{registry.host}/{repository}:1")
        for repository in "be":
            asked = registry.asked(f"/v2/{repository}/")
            assert asked and not any("Authorization" in request.headers for request in asked)


async def test_a_realm_that_fails_or_moves_is_asked_for_again(fetcher: Opened) -> None:
    realms = Realms(app="Bearer one")
    async with FaultyRegistry(IMAGE, guard=realms) as registry, fetcher() as f:
        await f.resolve(registry.reference)
        realms.challenges["app"], realms.broken = "Bearer two", {"one"}
        await f.resolve(registry.reference)
        assert realms.tokens == ["one", "two"]
        realms.challenges["app"] = ""
        await f.resolve(registry.reference)
        assert realms.tokens == ["one", "two"], "it became public, and refuses whoever shows anything"


@pytest.mark.parametrize("expired", [401, 403])
async def test_a_remembered_token_that_is_refused_leads_back_to_asking(fetcher: Opened, expired: int) -> None:
    realms = Realms(app="Bearer one")
    async with FaultyRegistry(IMAGE, guard=realms) as registry, fetcher() as f:
        await f.resolve(registry.reference)
        registry.plan("HEAD /v2/app", answers(expired))
        await f.resolve(registry.reference)
        assert realms.tokens == ["one", "one"]


@pytest.mark.parametrize("hides", [401, 403, 404])
async def test_a_login_is_used_where_only_the_front_page_asks_for_it(fetcher: Opened, tmp_path: Path, hides: int) -> None:
    async def guard(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == BASIC:
            return None
        challenge = {"WWW-Authenticate": 'Basic realm="x"'} if request.path == "/v2/" else {}
        return web.Response(status=401 if request.path == "/v2/" else hides, headers=challenge)

    async with FaultyRegistry(IMAGE, guard=guard) as registry:
        config = login(tmp_path / "config.json", registry.host)
        async with fetcher(configs=(config,)) as f:
            await f.pull(registry.reference)
            assert len(registry.asked("GET /v2/")) > len(registry.asked("GET /v2/app")) == len(registry.asked("GET /v2/")) - 1
        async with fetcher(root="anonymous") as f:
            registry.seen.clear()
            with pytest.raises(Permanent):
                await f.resolve(registry.reference)
            assert not [request for request in registry.seen if request.path == "/v2/"], "there is no secret to show"


async def test_a_front_page_that_asks_for_nothing_is_asked_once(fetcher: Opened, tmp_path: Path) -> None:
    async with FaultyRegistry(IMAGE) as registry:
        async with fetcher(configs=(login(tmp_path / "config.json", registry.host),)) as f:
            for _ in range(3):
                with pytest.raises(Permanent) as failed:
                    await f.resolve(f"{registry.host}/app:missing")
                assert failed.value.code == "MANIFEST_UNKNOWN"
        assert len([request for request in registry.seen if request.path == "/v2/"]) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_token_server_may_redirect_on_its_own_host(fetcher: Opened, tmp_path: Path, status: int) -> None:
    desk = TokenDesk(password=PASSWORD)

    async def guard(request: web.Request) -> web.Response | None:
        if request.path == "/token" and "moved" not in request.query:
            location = str(request.rel_url.update_query(moved="1"))
            return web.Response(status=status, headers={"Location": location})
        return await desk(request)

    async with (
        FaultyRegistry(IMAGE, guard=guard) as registry,
        fetcher(configs=(login(tmp_path / "config.json", registry.host),)) as f,
    ):
        await f.resolve(registry.reference)
    assert desk.given[0]["authorization"].startswith("Basic ")


async def test_a_redirected_token_request_shows_its_secret_to_nobody_else(fetcher: Opened, tmp_path: Path) -> None:
    async with FaultyRegistry(IMAGE) as other:

        async def guard(request: web.Request) -> web.Response:
            if request.path == "/token":
                return web.Response(status=307, headers={"Location": f"http://{other.host}/token?{request.query_string}"})
            realm = f'Bearer realm="http://{request.host}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})

        async with FaultyRegistry(IMAGE, guard=guard) as registry:
            for number, entry in enumerate(({}, {"identitytoken": "refresh-me"})):
                config = login(tmp_path / f"{number}.json", registry.host, **entry)
                async with fetcher(configs=(config,)) as f:
                    with pytest.raises(Permanent):
                        await f.resolve(registry.reference)
        assert len(other.seen) == 1, "what a form holds is not sent on at all"
        assert "Authorization" not in other.seen[0].headers


async def test_a_token_may_be_created(fetcher: Opened) -> None:
    desk = TokenDesk()

    async def guard(request: web.Request) -> web.Response | None:
        answer = await desk(request)
        if answer is not None and request.path == "/token":
            answer.set_status(201)
        return answer

    async with FaultyRegistry(IMAGE, guard=guard) as registry, fetcher() as f:
        await f.resolve(registry.reference)

"""Registries that ask who we are: what is sent to whom, how often, and what is never sent."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.errors import Permanent, Retryable
from tests.integration.fetcher.conftest import Opened
from tests.support.faulty import FaultyRegistry
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer

IMAGE = image([layer(tar_of({"file": b"content"}))])
SCOPE = "repository:app:pull"
PASSWORD = "open-sesame"
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


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper on PATH that knows the password of everything; it notes what it was asked."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    said = json.dumps({"ServerURL": "x", "Username": "ali", "Secret": PASSWORD})
    program.write_text(f"#!/bin/sh\nread -r server\necho \"$1 $server\" >> {tmp_path}/asked\nprintf '%s' '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program


@pytest.mark.parametrize("how", ["credsStore", "credHelpers"])
async def test_a_credential_helper_is_asked(fetcher: Opened, tmp_path: Path, helper: Path, how: str) -> None:
    desk = TokenDesk(password=PASSWORD)
    async with FaultyRegistry(IMAGE, guard=desk) as registry:
        config = tmp_path / "config.json"
        config.write_text(json.dumps({how: "test" if how == "credsStore" else {registry.host: "test"}}))
        async with fetcher(configs=(config,)) as f:
            await f.resolve(registry.reference)
        assert (tmp_path / "asked").read_text().splitlines()[0] == f"get {registry.host}"


@pytest.mark.parametrize("script", ["exit 3", "echo nonsense"])
async def test_a_helper_that_fails_is_asked_again_later(fetcher: Opened, tmp_path: Path, helper: Path, script: str) -> None:
    helper.write_text(f"#!/bin/sh\n{script}\n")
    async with FaultyRegistry(IMAGE, guard=TokenDesk()) as registry:
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"credsStore": "test"}))
        async with fetcher(configs=(config,)) as f:
            with pytest.raises(Retryable, match="docker-credential-test failed") as failed:
                await f.resolve(registry.reference)
            assert (failed.value.code, failed.value.concerns) == ("credential.helper", "credential")


async def test_a_helper_that_knows_nothing_leaves_it_to_the_file(fetcher: Opened, tmp_path: Path, helper: Path) -> None:
    helper.write_text("#!/bin/sh\necho 'credentials not found in native keychain'; exit 1\n")
    desk = TokenDesk(password=PASSWORD)
    async with FaultyRegistry(IMAGE, guard=desk) as registry:
        config = login(tmp_path / "config.json", registry.host)
        config.write_text(json.dumps({**json.loads(config.read_text()), "credsStore": "test"}))
        async with fetcher(configs=(config,)) as f:
            await f.resolve(registry.reference)

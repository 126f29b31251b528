"""Who gets to see the page, how many may watch it, and that it loads nothing from elsewhere."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from services.ledger.web.watching import WATCHERS
from tests.integration.ledger.test_page import APP, ledger
from tests.integration.ledger.test_service import service
from tests.support.browser import browser, page
from tests.support.nats_server import NatsServer
from tests.support.sky import Sky


async def test_nothing_but_the_ledger_is_loaded_and_nothing_is_inline(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (_, where, _), browser() as chromium, page(chromium, where) as shown:
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        await shown.goto("/")
        await expect(shown.locator("#line")).to_have_text("live")
        assert asked and all(url.startswith(where) for url in asked)
        async with aiohttp.ClientSession(where) as session, session.get("/") as response:
            policy = response.headers["Content-Security-Policy"]
            assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            text = await response.text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|//[a-z]", text)


async def test_beyond_loopback_it_asks_for_the_token(nats_server: NatsServer, tmp_path: Path) -> None:
    settings = {"PULLONCE_LEDGER_TOKEN": "a secret", "PULLONCE_LEDGER_HTTP": "0.0.0.0:0"}
    async with ledger(nats_server, tmp_path, **settings) as (_, where, _), browser() as chromium:
        where = where.replace("0.0.0.0", "127.0.0.1")
        async with aiohttp.ClientSession(where) as session:
            for path in ("/", "/main.js", "/api/history", "/api/live", "/metrics"):
                async with session.get(path) as response:
                    assert response.status == 401 and "Basic" in response.headers["WWW-Authenticate"], path
                async with session.get(path, headers={"Authorization": "Bearer wrong"}) as response:
                    assert response.status == 401
                async with session.get(path, headers={"Authorization": "Bearer a secret"}) as response:
                    assert response.status == 200
            async with session.get("/healthz") as response:
                assert response.status == 200
        async with page(chromium, where, http_credentials={"username": "me", "password": "a secret"}) as shown:
            await shown.goto("/")
            await expect(shown.locator("#line")).to_have_text("live")


async def test_without_a_token_it_stays_on_this_machine(nats_server: NatsServer, tmp_path: Path) -> None:
    async with service(tmp_path / "home", nats_server.url, PULLONCE_LEDGER_HTTP="0.0.0.0:0") as refused:
        assert await refused.ended() == 1
    async with ledger(nats_server, tmp_path) as (_, where, _), aiohttp.ClientSession(where) as session:
        # A name that somebody's DNS answers for (rebinding) is no name of ours.
        async with session.get("/api/history", headers={"Host": "evil.example"}) as response:
            assert response.status == 403
        async with session.get("/api/history", headers={"Host": "localhost:4280"}) as response:
            assert response.status == 200


async def test_no_other_site_has_a_browser_ask(nats_server: NatsServer, tmp_path: Path) -> None:
    """On loopback without a token, and with one: a browser adds passwords that it knows by itself."""
    for more in ({}, {"PULLONCE_LEDGER_TOKEN": "a secret"}):
        async with ledger(nats_server, tmp_path / str(len(more)), **more) as (_, where, _):
            ours = {"Authorization": "Bearer a secret"} if more else {}
            async with aiohttp.ClientSession(where, headers=ours) as session:
                for headers in (
                    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
                    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Origin": "http://127.0.0.1:8080"},
                    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
                    {"Origin": "http://evil.example"},
                    {"Origin": "null"},
                ):
                    for path in ("/api/sql?query=SELECT+1", "/api/history", "/api/live", "/api/parts", "/metrics"):
                        async with session.get(path, headers=headers) as response:
                            assert response.status == 403, (path, headers)
                async with session.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}) as response:
                    assert response.status == 403
                linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
                for path, headers in (
                    ("/", linked), ("/api/history", {"Sec-Fetch-Site": "same-origin"}),
                    ("/api/history", {"Sec-Fetch-Site": "none"}),
                    ("/api/history", {"Origin": where}), ("/api/history", {}),
                ):  # fmt: skip
                    async with session.get(path, headers=headers) as response:
                        assert response.status == 200, (path, headers)


async def test_many_may_watch_and_no_more(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, running):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(where, connector=connector) as session:
            streams = [await session.get("/api/live") for _ in range(WATCHERS)]
            assert {stream.status for stream in streams} == {200}
            async with session.get("/api/live") as response:
                assert response.status == 503
            await Sky(bus).ask(APP, 1)
            for stream in streams:
                async for line in stream.content:
                    if b'"registry.example/team/app:1"' in line:
                        break
                else:
                    pytest.fail("a watcher was not told")
            # They do not keep the ledger from ending.
            assert await running.end(signal.SIGTERM) == 0

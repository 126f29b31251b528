"""The page in a real browser: what is in the air moves by itself, hostile names stay names, phones and keyboards get along."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from pullonce.bus.ports import Bus
from schemas.status import decode_pong
from schemas.subjects import PING_SUBJECT
from tests.integration.ledger.test_service import Service, service, until_folded
from tests.support.browser import browser, page, picture
from tests.support.buses import NatsPlace, eventually
from tests.support.long_log import long_log
from tests.support.nats_server import NatsServer
from tests.support.sky import HOSTILE, Sky, layer

APP, OTHER = "registry.example/team/app:1", "registry.example/team/other:2"
BASE = layer("base", 48)
LAYERS = (BASE, layer("own", 9.4), layer("large", 62))
HOSTILE_PULLS = ("%zz%", "%2e%2e/%2e%2e/etc", "9" * 400, "<img src=x onerror=alert(1)>")
"""What an address may ask to have explained."""
VIEWS = ("air", "history", "stats", "failures", "parts")


@asynccontextmanager
async def ledger(server: NatsServer, tmp_path: Path, **settings: str) -> AsyncIterator[tuple[Bus, str, Service]]:
    """A ledger on a bus, and the address of its page."""
    async with NatsPlace(server.url).connect() as bus, service(tmp_path / "home", server.url, **settings) as running:
        yield bus, await address(bus), running


async def address(bus: Bus) -> str:
    found: list[str] = []

    async def answers() -> bool:
        pongs = [decode_pong(body) for body in await bus.signals.gather(PING_SUBJECT, b"", timeout=0.2)]
        found.extend(str(pong.details["http"]) for pong in pongs if pong.service == "ledger")
        return bool(found)

    await eventually(answers)
    return found[-1]


async def test_twenty_requests_are_seen_to_become_one_fetch(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, _), browser() as chromium, page(chromium, where) as shown:
        sky = Sky(bus)
        await shown.goto("/")
        await expect(shown.get_by_text("Nothing is in the air.")).to_be_visible()
        await expect(shown.locator("#line")).to_have_text("live")

        flight = await sky.ask(APP, 20, who="ci")
        row = shown.locator(".flight")
        await expect(row).to_have_count(1)
        await expect(row.locator(".asked")).to_have_text("20 waiting")
        await expect(row.locator(".state")).to_have_text("resolving")

        await sky.resolve(APP, flight, *LAYERS)
        other = await sky.ask(OTHER, 3)
        await sky.resolve(OTHER, other, BASE)
        await expect(shown.locator("#sum-asking")).to_have_text("23")
        await expect(shown.locator("#sum-flights")).to_have_text("2")
        await expect(shown.locator("#sum-fetches")).to_have_text("3")
        await expect(
            shown.get_by_role("img", name=re.compile("23 requests joined into 2 flights that need 3 fetches"))
        ).to_be_visible()
        assert await shown.locator(".confluence .thread").count() == 23
        await expect(row.first.locator(".layer.shared")).to_have_count(1)

        await sky.fetching(BASE, 0.5)
        await expect(row.first.locator(".layer").first).to_have_attribute("title", re.compile("fetch fetching 50 %"))
        await picture(shown, "air")
        for each in LAYERS:
            await sky.fetched(each)
            await sky.unpacked(each)
        await expect(row.first.locator(".sum")).to_contain_text("3 of 3 layers ready")
        await sky.land(APP, flight, *LAYERS, asked=20)
        await sky.land(OTHER, other, BASE, asked=3)
        await expect(row).to_have_count(0)
        await expect(shown.locator(".landed")).to_have_count(2)
        await expect(shown.locator(".landed").last).to_contain_text("20 requests → 3 fetches")


async def test_a_pull_is_explained_while_it_flies_and_after(nats_server: NatsServer, tmp_path: Path) -> None:
    async with (
        ledger(nats_server, tmp_path) as (bus, where, _),
        browser() as chromium,
        page(chromium, where, dark=True) as shown,
    ):
        sky = Sky(bus)
        flight = await sky.ask(APP, 4)
        await sky.resolve(APP, flight, *LAYERS)
        await until_folded(bus)
        await shown.goto(f"/#/pull/{flight[1]}")
        await expect(shown.locator(".verdict")).to_contain_text("In the air")
        await expect(shown.get_by_role("listitem", name=re.compile("^fetch "))).to_have_count(3)
        assert await unnamed(shown) == []
        for each in LAYERS:
            await sky.fetched(each)
            await sky.unpacked(each)
        await sky.land(APP, flight, *LAYERS, asked=4)
        await expect(shown.locator(".verdict")).to_contain_text("Landed after")
        await expect(shown.get_by_role("listitem", name=re.compile("^Critical path: "))).to_be_visible()
        await shown.locator("summary").click()
        await expect(shown.locator("tbody tr")).to_have_count(6)
        assert await unnamed(shown) == []
        await picture(shown, "pull-dark")


async def test_a_hostile_name_stays_a_name(nats_server: NatsServer, tmp_path: Path) -> None:
    async with (
        ledger(nats_server, tmp_path) as (bus, where, _),
        browser() as chromium,
        page(chromium, where, refusals=len(HOSTILE_PULLS)) as shown,
    ):
        sky = Sky(bus)
        shown.on("dialog", lambda _: pytest.fail("a script of somebody else's ran"))
        await sky.ask(HOSTILE, 2, who=HOSTILE)
        flight = await sky.ask(APP, 1, who="<b>bold</b>")
        await sky.fail(APP, flight, "<i>CODE</i>", "<script>alert(1)</script>")
        await until_folded(bus)
        for view in (*VIEWS, f"pull/{flight[1]}", *(f"pull/{each}" for each in HOSTILE_PULLS)):
            await shown.goto(f"/#/{view}")
            await expect(shown.locator("h1")).to_be_visible()
            if view.startswith("pull/") and view != f"pull/{flight[1]}":
                await expect(shown.locator(".note.bad")).to_be_visible()
            await expect(shown.locator(".view img, .view script, .view b b")).to_have_count(0)
        await expect(shown.locator(".note.bad")).to_contain_text("onerror=alert(1)")
        await shown.goto("/#/air")
        await expect(shown.locator(".flight .name")).to_have_text(HOSTILE)
        await shown.goto("/#/failures")
        await expect(shown.locator("td", has_text="<script>alert(1)</script>").first).to_be_visible()


async def test_history_is_searched_and_read_on(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, _), browser() as chromium, page(chromium, where) as shown:
        await bus.log.append_all([event for _, _, event in long_log(2000)])
        sky = Sky(bus)
        await sky.fail(APP, await sky.ask(APP, 2, who="somebody"), "MANIFEST_UNKNOWN", "there is no such tag")
        await until_folded(bus)
        await shown.goto("/#/history")
        rows = shown.locator("tbody tr")
        await expect(rows).to_have_count(50)
        await shown.get_by_role("button", name="Older ones").click()
        await expect(rows).to_have_count(100)
        search = shown.get_by_role("searchbox", name="Search")
        await search.fill("TEAM/app:1")
        await search.press("Enter")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("MANIFEST_UNKNOWN")
        await picture(shown, "history")
        await shown.goto("/#/history?q=somebody-1&failed=1")
        await expect(rows).to_have_count(1)
        await shown.goto("/#/stats?over=quarter")
        await expect(shown.locator(".chart svg")).to_have_count(3)
        await expect(shown.locator(".block")).not_to_have_count(0)
        await picture(shown, "stats")
        await shown.goto("/#/failures")
        await expect(shown.locator("td", has_text="there is no such tag").first).to_be_visible()


async def test_a_phone_scrolls_in_one_direction(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, _), browser() as chromium:
        await bus.log.append_all([event for _, _, event in long_log(1000)])
        sky = Sky(bus)
        flight = await sky.ask(APP, 20)
        await sky.resolve(APP, flight, *LAYERS)
        await sky.ask("registry.example/" + "very-long-name" * 12 + ":1", 1)
        await until_folded(bus)
        async with page(chromium, where, phone=True) as shown:
            for view in (*VIEWS, f"pull/{flight[1]}"):
                await shown.goto(f"/#/{view}")
                await expect(shown.locator("h1")).to_be_visible()
                wide = await shown.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide == 0, view
                await picture(shown, f"phone-{view.partition('/')[0]}")


async def test_keys_and_screen_readers_get_everywhere(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, _), browser() as chromium, page(chromium, where) as shown:
        await Sky(bus).ask(APP, 1)
        await until_folded(bus)
        await shown.goto("/")
        await expect(shown.locator(".flight")).to_have_count(1)
        await shown.keyboard.press("Tab")
        await expect(shown.get_by_role("link", name="Skip to the content")).to_be_focused()
        await shown.keyboard.press("Enter")
        await expect(shown.locator("main")).to_be_focused()
        await expect(shown.locator("h1")).to_have_text("In the air")
        for name in ("History", "Statistics", "Failures", "Parts", "In the air"):
            link = shown.get_by_role("navigation", name="Views").get_by_role("link", name=name)
            await link.focus()
            await shown.keyboard.press("Enter")
            await expect(link).to_have_attribute("aria-current", "page")
            await expect(shown.get_by_role("heading", level=1, name=name)).to_be_visible()
            await expect(shown).to_have_title(f"{name} · pullonce")
            await expect(shown.locator("main")).to_be_focused()
            assert await unnamed(shown) == []


async def unnamed(shown: object) -> list[str]:
    """What can be used or is a picture, and has no name for who cannot see it."""
    return await shown.evaluate(  # type: ignore[attr-defined, no-any-return]
        """() => [...document.querySelectorAll("a, button, input, [role=img], summary")].filter((each) =>
            !(each.textContent.trim() || each.getAttribute("aria-label") || each.labels?.length || each.title))
            .map((each) => each.outerHTML)"""
    )


async def test_it_comes_back_by_itself(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, running), browser() as chromium:
        sky = Sky(bus)
        await sky.ask(APP, 1)
        await until_folded(bus)
        context = await chromium.new_context(base_url=where)
        shown = await context.new_page()
        await shown.goto("/")
        await expect(shown.locator(".flight")).to_have_count(1)
        await running.end(signal.SIGKILL)
        await expect(shown.locator("#line")).to_have_text("away, trying again")
        await sky.ask(OTHER, 1)
        running.set("PULLONCE_LEDGER_HTTP", urlsplit(where).netloc)
        await running.start()
        await expect(shown.locator(".flight")).to_have_count(2, timeout=30_000)
        await expect(shown.locator("#line")).to_have_text("live")
        await context.close()

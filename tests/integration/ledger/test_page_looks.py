"""What the page looks like, as the browser has computed it: legible in light and dark, and sparing with what it draws anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from pullonce.process.runtime import answer_pings
from tests.integration.ledger.test_page import APP, LAYERS, OTHER, VIEWS, ledger
from tests.support.browser import browser, page, picture
from tests.support.long_log import long_log
from tests.support.nats_server import NatsServer
from tests.support.sky import Sky, crowd, crowd_layers

PAPER = {False: [251, 250, 247], True: [20, 22, 26]}

ILLEGIBLE = """() => {
    const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = color; pixel.fillRect(0, 0, 1, 1);
        return [...pixel.getImageData(0, 0, 1, 1).data];
    };
    const light = (color) => color.slice(0, 3).map((each) => each / 255)
        .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const color = rgba(getComputedStyle(each).backgroundColor);
            if (color[3] === 255) return color;
        }
        return null;
    };
    const found = new Set();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode.textContent.trim(), element = texts.currentNode.parentElement;
        if (!text || !element.checkVisibility() || element.closest("[aria-hidden], .unseen, .skip, title, thead")) continue;
        const style = getComputedStyle(element);
        const ink = rgba(element instanceof SVGElement ? style.fill : style.color), paper = ground(element);
        const [brighter, darker] = [light(ink), light(paper)].sort((a, b) => b - a);
        const contrast = (brighter + 0.05) / (darker + 0.05);
        const large = parseFloat(style.fontSize) >= 24;
        if (contrast < (large ? 3 : 4.5)) found.add(`${element.className}: ${text.slice(0, 40)}, ${contrast.toFixed(2)}`);
    }
    return { illegible: [...found], paper: ground(document.body).slice(0, 3), texts: document.body.innerText.length };
}"""
"""Texts whose contrast with what lies behind them is below what WCAG asks for (AA), and the colour of the page."""


@pytest.mark.parametrize("dark", [False, True])
async def test_every_text_is_legible(nats_server: NatsServer, tmp_path: Path, dark: bool) -> None:
    async with (
        ledger(nats_server, tmp_path) as (bus, where, _),
        browser() as chromium,
        page(chromium, where, dark=dark) as shown,
    ):
        await bus.log.append_all([event for _, _, event in long_log(1000)])
        sky = Sky(bus)
        flight = await sky.ask(APP, 4)
        await sky.resolve(APP, flight, *LAYERS)
        failed = await sky.ask(OTHER, 1)
        await sky.fail(OTHER, failed, "MANIFEST_UNKNOWN", "there is no such tag")
        for view, sign in (
            *((view, "h1") for view in VIEWS),
            (f"pull/{flight[1]}", ".verdict"),
            (f"pull/{failed[1]}", ".verdict.bad"),
        ):
            await shown.goto(f"/#/{view}")
            await expect(shown.locator(sign).first).to_be_visible()
            await expect(shown.locator("#line")).to_have_text("live")
            looks = await shown.evaluate(ILLEGIBLE)
            assert looks["illegible"] == [] and looks["texts"] > 100, view
            assert looks["paper"] == PAPER[dark]
            await picture(shown, f"{view.partition('/')[0]}-{'dark' if dark else 'light'}")


async def test_the_health_of_the_parts_is_judged(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, _), browser() as chromium, page(chromium, where) as shown:
        await answer_pings(bus.signals, "coordinator", "", lambda: {"position": 0})
        await Sky(bus).ask(APP, 3)
        await shown.goto("/#/air")
        await expect(shown.locator("#sum-asking")).to_have_text("3")
        await shown.goto("/#/parts")
        await expect(shown.get_by_role("alert")).to_have_text("No fetcher and no unpacker answers.")
        await expect(shown.get_by_role("row", name="coordinator")).to_contain_text("3 behind the ledger")
        for part in ("fetcher", "unpacker"):
            await answer_pings(bus.signals, part, "default")
        await expect(shown.locator(".verdict")).to_have_text("All parts answer: 4 processes.")  # it asks again by itself
        await expect(shown.get_by_role("alert")).to_have_count(0)


COUNT = """() => {
    window.changed = { rows: new Set(), elements: 0 };
    const note = (records) => {
        for (const record of records) {
            const element = record.target.nodeType === Node.TEXT_NODE ? record.target.parentElement : record.target;
            const row = element?.closest(".flight");
            if (element?.classList.contains("since")) continue;  // the clock of a row in view, once a second
            if (row) window.changed.rows.add(row); else window.changed.elements += 1;
        }
    };
    new MutationObserver(note).observe(document.body,
        { subtree: true, childList: true, attributes: true, characterData: true });
}"""


async def test_of_a_thousand_flights_only_what_is_in_view_and_changed_is_drawn(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ledger(nats_server, tmp_path) as (bus, where, _), browser() as chromium, page(chromium, where) as shown:
        sky = Sky(bus)
        opened = await bus.log.append_all(list(crowd(1000)))
        await sky.resolve_all(
            [(f"registry.example/team-{n % 40}/service-{n}:1", at, crowd_layers(n)) for n, at in enumerate(opened)]
        )
        await shown.goto("/")
        await expect(shown.locator("#sum-flights")).to_have_text("1,000")
        await expect(shown.locator("#sum-fetches")).to_have_text("7,100")
        await expect(shown.locator(".flight")).to_have_count(1000)
        await expect(shown.locator(".layer").first).to_be_visible()
        assert await shown.locator(".layer").count() <= 40 * 8
        await settled(shown)
        await shown.evaluate(COUNT)
        await sky.fetched(crowd_layers(0)[0])  # the base layer of ten flights, at the top of the list
        await expect(shown.locator("#sum-fetches")).to_have_text("7,099")
        await settled(shown)
        rows, elements = await shown.evaluate("[window.changed.rows.size, window.changed.elements]")
        assert 0 < rows <= 10 and elements <= 20
        # One more flight is one row more, and moves no other.
        await sky.ask("registry.example/one/more:1", 1)
        await expect(shown.locator(".flight")).to_have_count(1001)
        rows, elements = await shown.evaluate("[window.changed.rows.size, window.changed.elements]")
        assert rows <= 11 and elements <= 40
        await shown.locator("#filter").fill("service-77")
        await expect(shown.locator(".flight:not([hidden])")).to_have_count(11)


async def settled(shown: Page) -> None:
    """Return after two frames: whatever the page was told is drawn, and the observers have looked."""
    await shown.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

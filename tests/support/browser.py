"""A real browser for the page: Debian's chromium, headless, driven by playwright. Nothing but loopback is reached."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

expect.set_options(timeout=20_000)

_PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
WIDE = {"width": 1200, "height": 900}
PHONE = {"width": 390, "height": 844}


def program() -> str:
    """The browser of this machine; skips the test where there is none, unless CI asks for all tests."""
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return found
    if os.environ.get("CI") == "true":
        pytest.fail("chromium is missing, and CI skips nothing")
    pytest.skip("chromium is not installed")


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser for the length of the block."""
    path = program()
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield running
        finally:
            await running.close()


@asynccontextmanager
async def page(
    of: Browser, address: str, *, dark: bool = False, phone: bool = False, refusals: int = 0, **options: object
) -> AsyncIterator[Page]:
    """A page at an address. Whatever its console complains about, or its scripts throw, fails the test.

    Args:
        refusals: how many questions the ledger is expected to refuse; a browser complains of each.
    """
    context = await of.new_context(
        base_url=address, viewport=PHONE if phone else WIDE, color_scheme="dark" if dark else "light",
        has_touch=phone, is_mobile=phone, device_scale_factor=2 if phone else 1, **options,  # type: ignore[arg-type]
    )  # fmt: skip
    complaints: list[str] = []
    made = await context.new_page()
    made.set_default_timeout(20_000)
    made.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield made
    finally:
        await context.close()
    refused = [each for each in complaints if "the server responded with a status of 4" in each]
    assert len(refused) == refusals and len(complaints) == refusals, complaints


async def picture(of: Page, name: str) -> None:
    """Keep a screenshot where `PULLONCE_SCREENSHOTS` says, for people to look at; nowhere without it."""
    if directory := os.environ.get("PULLONCE_SCREENSHOTS"):
        Path(directory).mkdir(parents=True, exist_ok=True)
        await of.screenshot(path=Path(directory) / f"{name}.png", full_page=True)

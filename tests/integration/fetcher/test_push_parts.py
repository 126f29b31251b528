"""How long the parts are in which a blob is pushed, and how long an answer may take."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from pullonce.errors import Permanent, Retryable
from services.fetcher.pushing.blobs import SMALLEST_PART
from tests.support.odd_pushes import HEAD, LARGE, NOW, PART, PATCH, POST
from tests.support.push_registry import Fault, PushRegistry, answers, breaks_after, drips
from tests.support.pushing import pushing_store

SIZE = len(LARGE.blob)
USUAL = [PART, PART, SIZE - 2 * PART]


def lengths(registry: PushRegistry) -> list[int]:
    found = []
    for each in registry.asked(PATCH):
        first, last = each["Content-Range"].split("-")
        found.append(int(last) - int(first) + 1)
    return found


@pytest.mark.parametrize(
    ("where", "fault", "expected"),
    [
        (POST, answers(429, headers=NOW), USUAL),
        (POST, answers(504, headers=NOW), USUAL),
        (HEAD, answers(503, headers=NOW), USUAL),
        (PATCH, answers(429, headers=NOW), [PART, *USUAL]),
        (PATCH, answers(503, headers=NOW), [PART, *USUAL]),
        (PATCH, answers(504, headers=NOW), [PART, *[SMALLEST_PART] * 4, SIZE - 4 * SMALLEST_PART]),
        (PATCH, breaks_after(1000, kept=False), [PART, *[SMALLEST_PART] * 4, SIZE - 4 * SMALLEST_PART]),
    ],
    ids=["429 POST", "504 POST", "503 HEAD", "429 PATCH", "503 PATCH", "504 PATCH", "a break"],
)
async def test_only_what_breaks_off_makes_parts_shorter_and_for_that_blob_alone(
    tmp_path: Path, where: str, fault: Fault, expected: list[int]
) -> None:
    """And they grow again: after four that were taken the fifth is as long as it would have been."""
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        registry.plan(where, fault, 1)
        await s.push(f"{registry.host}/app:1")
        assert lengths(registry) == expected
        registry.seen.clear()
        registry.blobs.clear()
        await s.push(f"{registry.host}/app:2")
        assert lengths(registry) == USUAL


@pytest.mark.parametrize(("where", "status"), [(POST, 403), (POST, 401), (PATCH, 503)])
async def test_an_answer_that_never_ends_is_left(tmp_path: Path, where: str, status: int) -> None:
    """Byte by byte, so that something always comes."""
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        uploads = s.pusher.registry.uploads
        uploads._patience = 0.1
        uploads._transport._settings = dataclasses.replace(uploads._transport._settings, patience=0.1)
        s.pusher.attempts = 1
        registry.plan(where, drips(status, {"WWW-Authenticate": 'Basic realm="x"'}), 10)
        async with asyncio.timeout(30):
            with pytest.raises((Permanent, Retryable)):
                await s.push(f"{registry.host}/app:1")

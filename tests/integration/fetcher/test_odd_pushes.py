"""Pushes to each registry of `tests/support/odd_pushes.py`: it ends as its row says, and nothing else ever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from pullonce.errors import Permanent, Retryable
from tests.integration.exchange.conftest import list_image
from tests.support.odd_pushes import IMAGE, ODD, OddPush
from tests.support.push_registry import PushRegistry
from tests.support.pushing import pushing_store

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("odd", ODD, ids=[each.does for each in ODD])
async def test_a_push_to_an_odd_registry_ends_as_it_should(tmp_path: Path, odd: OddPush) -> None:
    async with PushRegistry(**odd.made) as registry, pushing_store(tmp_path) as s:
        odd.plan(registry)
        if odd.neighbour:
            list_image(s.content, f"{registry.host}/other/name:1", IMAGE)
            registry.blobs = {("other/name", digest): blob for digest, blob in IMAGE.blobs.items()}
        try:
            status = await s.push(f"{registry.host}/app:1")
        except (Permanent, Retryable) as exc:
            assert exc.code == odd.ends, str(exc)
            assert odd.says in str(exc)
            assert len(str(exc)) < 1000 and str(exc).isprintable(), "one line that people can read"
        else:
            assert not odd.ends, "it was pushed"
            assert status.digest == IMAGE.digest
            assert registry.manifests["app", "1"] == (IMAGE.media_type, IMAGE.content)
            assert registry.has("app", IMAGE.blobs)
            assert registry.taken <= (odd.costs or registry.taken)
            assert s.left() == []


def test_every_row_is_told_in_the_docs() -> None:
    lines = (ROOT / "docs" / "registry.md").read_text().splitlines()
    rows = [f"| {each.does} | {each.source} | {f'`{each.ends}`' if each.ends else 'pushed'} |" for each in ODD]
    assert [row for row in rows if row not in lines] == [], "add these lines to the table of docs/registry.md"
    assert len(set(rows)) == len(ODD)

"""Pulls from each registry of `tests/support/odd_registries.py`: it ends as its row says, and nothing else ever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from pullonce.errors import Permanent, Retryable
from schemas.oci import Digest
from services.fetcher.settings import RegistrySettings
from tests.integration.fetcher.conftest import Opened
from tests.support.faulty import FaultyRegistry
from tests.support.odd_registries import ODD, Odd

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("odd", ODD, ids=[each.does for each in ODD])
async def test_a_pull_from_an_odd_registry_ends_as_it_should(fetcher: Opened, odd: Odd) -> None:
    async with FaultyRegistry(odd.image) as registry, fetcher(settings=RegistrySettings(patience=5.0)) as f:
        odd.plan(registry)
        try:
            resolved = await f.pull(registry.reference, platform="linux/amd64")
        except (Permanent, Retryable) as exc:
            assert exc.code == odd.ends, str(exc)
            assert odd.says in str(exc) and exc.concerns in ("source", "credential")
            assert len(str(exc)) < 1000 and str(exc).isprintable(), "one line that people can read"
        else:
            assert not odd.ends, "it was pulled"
            assert all(f.content.has(Digest(each.blob.digest)) for each in resolved.layers)


def test_every_row_is_told_in_the_docs() -> None:
    lines = (ROOT / "docs" / "registry.md").read_text().splitlines()
    rows = [f"| {each.does} | {each.source} | {f'`{each.ends}`' if each.ends else 'pulled'} |" for each in ODD]
    assert [row for row in rows if row not in lines] == [], "add these lines to the table of docs/registry.md"
    assert len(set(rows)) == len(ODD)

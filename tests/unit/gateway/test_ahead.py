"""Holds that are written before anybody asks for them: whose they are, and what becomes of those that nobody wants."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pullonce.store.content import opened
from schemas.oci import ChainID
from services.gateway.snapshotter import ahead
from services.gateway.snapshotter.ahead import Ahead
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.records import Kind, Record, name_of

RECORDS = [
    Record(name=name_of(each), kind=Kind.COMMITTED, created=1, updated=1, chain_id=each)
    for each in (ChainID("sha256:" + digit * 64) for digit in "abc")
]
A, B, C = (record.name for record in RECORDS)


async def test_a_hold_is_taken_once_and_only_where_it_is_on_the_disk(tmp_path: Path) -> None:
    layers = Layers(opened(tmp_path))
    made = Ahead(layers)
    made.begin(RECORDS)
    made.begin(RECORDS)
    assert await made.take(A) and layers.is_held(A) and not await made.take(A)
    layers.let_go(B)
    assert not await made.take(B) and not await made.take("nobody's")
    await made.close()
    assert [record.name for record in layers.held()] == [A], "what was taken is the taker's, the rest is let go"


async def test_what_nobody_asks_for_is_let_go_and_may_be_held_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "KEEP", 0.05)
    layers = Layers(opened(tmp_path))
    made = Ahead(layers)
    made.begin(RECORDS)
    assert await made.take(C)
    for _ in range(200):
        if len(layers.held()) == 1:
            break
        await asyncio.sleep(0.02)
    assert [record.name for record in layers.held()] == [C] and not await made.take(A)
    made.begin(RECORDS[:1])
    assert await made.take(A) and layers.is_held(A)
    await made.close()


async def test_a_disk_that_refuses_leaves_each_hold_to_who_asks_for_it(tmp_path: Path) -> None:
    layers = Layers(opened(tmp_path))
    (tmp_path / "holds").rmdir()
    (tmp_path / "holds").write_bytes(b"in the way")
    made = Ahead(layers)
    made.begin(RECORDS)
    assert not await made.take(A)
    await made.close()
    assert (tmp_path / "holds").read_bytes() == b"in the way"

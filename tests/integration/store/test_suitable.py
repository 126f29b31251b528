"""Stores where nothing could be unpacked: refused at the start, with the reason and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.store.suitable import StoreUnsuitable, check_suitable
from tests.support.chaos_disk import mounted_on
from tests.support.command import pullonce
from tests.support.layers import unpacker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """What a container without a volume has for a disk."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    with mounted_on(tmp_path / "merged", "-t", "overlay", "-o", options, "overlay"):
        yield tmp_path / "merged"


async def test_a_store_on_overlayfs(overlay: Path) -> None:
    with pytest.raises(StoreUnsuitable, match=r"its file system \(overlay\).*give it a volume"):
        async with unpacker(overlay / "home" / "store"):
            pass


def test_up_on_overlayfs_says_why_at_once(overlay: Path) -> None:
    done = pullonce("up", home=overlay / "home")
    assert done.returncode == 1
    assert "its file system (overlay)" in done.stderr and "PULLONCE_HOME" in done.stderr
    assert "disk.denied" not in done.stderr
    assert list(overlay.iterdir()) == []


def test_a_store_without_extended_attributes(tmp_path: Path) -> None:
    with mounted_on(tmp_path / "ram", "-t", "ramfs", "ramfs"):
        with pytest.raises(StoreUnsuitable, match=r"its file system \(ramfs\) keeps no extended attributes.*ext4"):
            check_suitable(tmp_path / "ram" / "store")
        assert list((tmp_path / "ram").iterdir()) == []


def test_where_layers_can_be_unpacked_nothing_is_said_and_nothing_left(tmp_path: Path) -> None:
    check_suitable(tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == []

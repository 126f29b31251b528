"""Mounts with an upper directory: of deep stacks, in directories of odd names, read-only, and with other owners."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pullonce.oci.mappings import mappings
from pullonce.store.mounting import MountFailed, make_read_only, mount, unmount
from pullonce.store.snapshots import Overlay
from pullonce.store.upper import make_upper

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def stacked(place: Path, depth: int) -> Overlay:
    """Trees with a file each, and an upper directory beside them."""
    base = place / "l"
    names = [f"{number:020}" for number in range(depth)]
    for number, name in enumerate(names):
        (base / name).mkdir(parents=True)
        (base / name / f"file-{number}").touch()
        os.chown(base / name / f"file-{number}", 5, 6)
    make_upper(place / "upper", base / names[0])
    for name in ("work", "target"):
        (place / name).mkdir()
    return Overlay(base=base, names=names, options=[], upper=place / "upper", work=place / "work")


@pytest.mark.parametrize("name", ["plain", "a,b:c\\d", "l\nine"])
@pytest.mark.parametrize("depth", [2, 250])
@pytest.mark.parametrize("ids", [[], ["0:100000:65536"]])
def test_a_stack_is_mounted_and_written_upon(tmp_path: Path, name: str, depth: int, ids: list[str]) -> None:
    place = tmp_path / name
    place.mkdir()
    target, given = place / "target", mappings(ids, [])
    mount(stacked(place, depth), target, mappings=given)
    try:
        assert len(list(target.iterdir())) == depth
        status = (target / f"file-{depth - 1}").stat()
        assert (status.st_uid, status.st_gid) == ((100_005, 100_006) if ids else (5, 6))
        (target / "new").touch()
        assert (place / "upper" / "new").exists()
        make_read_only(target)
        with pytest.raises(OSError, match="Read-only"):
            (target / "more").touch()
    finally:
        unmount(target)
    assert list(target.iterdir()) == []


def test_an_upper_directory_looks_as_the_root_below_it(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    os.setxattr(below, "user.mark", b"here")
    os.setxattr(below, "trusted.overlay.opaque", b"y")
    os.chown(below, 7, 8)
    below.chmod(0o2751)
    os.utime(below, (1, 2))
    for _ in range(2):
        make_upper(tmp_path / "upper", below)
    found = (tmp_path / "upper").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777, found.st_mtime) == (7, 8, 0o2751, 2)
    assert os.listxattr(tmp_path / "upper") == ["user.mark"]
    make_upper(tmp_path / "upper", below, (9, 10))
    assert ((tmp_path / "upper").stat().st_uid, (tmp_path / "upper").stat().st_gid) == (9, 10)


def test_a_file_system_without_idmapped_mounts_is_told(tmp_path: Path) -> None:
    """overlayfs has none itself."""
    place = tmp_path / "outer"
    place.mkdir()
    mount(stacked(place, 2), place / "target")
    try:
        (place / "target" / "inner").mkdir()
        overlay = stacked(place / "target" / "inner", 2)
        with pytest.raises(MountFailed, match="and a file system that has them"):
            mount(overlay, place / "target" / "inner" / "target", mappings=mappings(["0:100000:65536"], []))
    finally:
        unmount(place / "target")


def test_a_high_stack_that_is_written_to_at_a_long_path_is_told_what_to_do(tmp_path: Path) -> None:
    """Its options do not fit into a page, and Linux takes no more than 255 bytes of each otherwise."""
    overlay = stacked(tmp_path, 250)
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    for each in ("upper", "work", "root"):
        (deep / each).mkdir(parents=True)
    overlay = msgspec.structs.replace(overlay, upper=deep / "upper", work=deep / "work")
    with pytest.raises(MountFailed, match=r"a directory with a shorter path, by \d+ bytes"):
        mount(overlay, deep / "root")

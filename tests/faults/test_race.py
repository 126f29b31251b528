"""Somebody who may write into the staging tree swaps what is in it for links while a layer is unpacked and completed.

What then becomes of the layer is his affair; nothing that the links lead to is touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pullonce.store.trees import remove_tree
from services.unpacker.tar.archive import Archive
from services.unpacker.tar.invalid import LayerError
from services.unpacker.tree.finish import complete, links_passed_through
from services.unpacker.tree.layer import Layer
from services.unpacker.tree.outcome import Outcome
from services.unpacker.tree.rights import Rights
from tests.support.layers import entry, tar
from tests.support.trees import differences, read_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and whiteouts need root")

SECONDS = 1.5
LIMIT = 30
ENOUGH = 20
"""Attempts that went through beside the swapping, and attempts that met a swap, at least."""

SWAPPER = """
import os, random, sys
tree, outside = sys.argv[1:]
names = ["d", "d/e", "d/e/x", "u", "u/v", "d/pipe", "d/f7"]
swaps = tries = 0
os.mkdir(tree + ".away")
print("begun", flush=True)
while True:
    name = random.choice(names)
    place = f"{tree}/{name}"
    tries += 1
    away = f"{tree}.away/{tries}"
    try:
        os.rename(place, away)
        os.symlink(f"{outside}/{name}", place)
        for _ in range(random.randrange(200)):
            pass
        os.unlink(place)
    except OSError:
        pass
    try:
        os.rename(away, place)
        swaps += 1
    except OSError:
        pass
    for _ in range(random.randrange(3000)):
        pass
    if os.path.exists(outside + ".stop"):
        print(swaps, flush=True)
        break
"""

LOWER = tar(
    entry("d", "dir", mode=0o711, uid=5),
    entry("d/e", "dir", mode=0o700, gid=6),
    entry("d/low", content=b"low", mode=0o4755, uid=9, xattrs={"user.low": "l"}),
    entry("d/gone", content=b"gone"),
    entry("u", "dir", mode=0o1777),
    entry("u/v", "dir", mode=0o555, uid=3, xattrs={"user.v": "v"}),
)
UPPER = tar(
    entry("d", "dir", mode=0o2775, uid=1, gid=2),
    entry("d/e", "dir", mode=0o757, uid=3),
    *(entry(f"d/f{n}", content=b"f" * n, mode=0o4711, uid=n, xattrs={"user.f": "f"}) for n in range(12)),
    entry("d/pipe", "fifo", mode=0o7666, uid=4, xattrs={"user.p": "p"}),
    entry("d/h", "hardlink", linkname="d/f7"),
    entry("d/e/x", "dir", mode=0o707),
    entry("d/e/x/y", content=b"y"),
    entry("u/v/w", content=b"w"),
    entry("u/v/.wh.never"),
    entry("d/.wh.gone"),
    entry("d/e/up", "hardlink", linkname="d/low"),
    entry("u/up", "hardlink", linkname="d/low"),
    entry("d/f7", content=b"again"),
)


def unpack(layer: bytes, tree: Path) -> Outcome:
    trash = tree.with_name("trash")
    for each in (tree, trash):
        each.mkdir()
    root, rubbish = (os.open(each, os.O_RDONLY | os.O_DIRECTORY) for each in (tree, trash))
    try:
        rights = Rights(opaque=b"trusted.overlay.opaque")
        return Layer(root, rubbish, rights=rights, links_below={}).unpack(Archive(iter([layer])))
    finally:
        os.close(root)
        os.close(rubbish)
        remove_tree(trash)


def attempt(tree: Path, lower: Path) -> str:
    """Unpack and complete a layer beside the swapping; how far that went."""
    how = "unpack"
    try:
        outcome = unpack(UPPER, tree)
        how = "complete"
        links_passed_through(outcome, [lower])
        complete(tree, [lower], outcome, Rights(opaque=b"trusted.overlay.opaque"))
        how = "whole"
    except (LayerError, OSError):
        pass
    return how


def make_outside(place: Path) -> None:
    """Everything that the links lead to, of other owners and modes than in the layer."""
    for name in ("d/e/x", "u/v"):
        (place / name).mkdir(parents=True)
    for name in ("d/f7", "d/pipe", "d/low", "d/gone", "d/e/x/y", "u/v/w"):
        (place / name).write_text("untouched")
    for path in [place, *place.rglob("*")]:
        path.chmod(0o750 if path.is_dir() else 0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))


def test_links_that_appear_meanwhile_lead_nowhere(tmp_path: Path) -> None:
    outside, tree, lower = tmp_path / "outside", tmp_path / "staging", tmp_path / "lower" / "fs"
    make_outside(outside)
    lower.parent.mkdir()
    unpack(LOWER, lower)
    before = read_tree(outside), read_tree(lower)
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, tree, outside], stdout=subprocess.PIPE, text=True)
    assert swapper.stdout is not None and swapper.stdout.readline() == "begun\n"
    how: Counter[str] = Counter()
    begun = time.monotonic()
    try:
        while (took := time.monotonic() - begun) < SECONDS or (min(how["whole"], how["unpack"]) < ENOUGH and took < LIMIT):
            how[attempt(tree, lower)] += 1
            remove(tree)
    finally:
        outside.with_name("outside.stop").touch()
        swaps, _ = swapper.communicate()
    print(f"{dict(how)} beside {int(swaps)} swaps")
    assert min(how["whole"], how["unpack"]) >= ENOUGH, "both went on at once"
    assert differences(read_tree(outside), before[0]) == []
    assert differences(read_tree(lower), before[1]) == []


def remove(tree: Path) -> None:
    """Remove what the swapper may still be at."""
    while tree.exists():
        try:
            remove_tree(tree)
        except OSError:
            continue

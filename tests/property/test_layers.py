"""Random layers, unpacked each on its own in any order, mounted, and compared with umoci, which applies one upon another."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from tests.support.layers import Image, UnpackerService, entry, mounted, tar, umoci_unpack
from tests.support.trees import Node, differences, read_tree

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
    pytest.mark.skipif(not shutil.which("umoci") and os.environ.get("CI") != "true", reason="umoci is not installed"),
]

EXAMPLES = int(os.environ.get("PULLONCE_EXAMPLES", "0"))
"""Where it is set, that many are drawn at random; otherwise always the same ones, so that a build never fails by chance."""

Tree = dict[bytes, Node]

LATEST = 1_600_000_000
"""Seconds: the youngest time of an entry. What umoci dates later, it dates by the clock."""

NAMES = st.sampled_from(["a", "b", "c", "link"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@st.composite
def entries(draw: st.DrawFn) -> tuple[object, bytes]:
    """One entry of a layer, on names so few that they often meet."""
    path = draw(PATHS)
    kind = draw(st.sampled_from(["file", "file", "dir", "dir", "symlink", "hardlink", "whiteout", "opaque", "fifo"]))
    parent, _, name = path.rpartition("/")
    fields = {"mtime": draw(st.integers(1, LATEST)), "uid": draw(st.integers(0, 3)), "gid": draw(st.integers(0, 3))}
    match kind:
        case "file":
            return entry(
                path, content=draw(st.binary(max_size=20)), mode=draw(st.sampled_from([0o644, 0o600, 0o4755])), **fields
            )
        case "dir":
            return entry(path, "dir", mode=draw(st.sampled_from([0o755, 0o700, 0o2775, 0o1777])), **fields)
        case "symlink":
            return entry(
                path, "symlink", linkname=draw(st.sampled_from(["a", "b", "/a", "../b", "a/b", "/c/a", "missing"])), **fields
            )
        case "hardlink":
            return entry(path, "hardlink", linkname=draw(PATHS), **fields)
        case "whiteout":
            return entry(f"{parent}/.wh.{name}" if parent else f".wh.{name}", **fields)
        case "opaque":
            return entry(f"{parent}/.wh..wh..opq" if parent else ".wh..wh..opq", **fields)
        case _:
            return entry(path, kind, **fields)


LAYERS = st.lists(st.lists(entries(), min_size=1, max_size=8), min_size=1, max_size=4)


def without_times_of_the_clock(ours: Tree, theirs: Tree) -> tuple[Tree, Tree]:
    """umoci gives directories that no layer names the time at which it makes them: nothing to compare with."""
    clocked = {path for path, node in theirs.items() if stat.S_ISDIR(node.kind) and node.mtime > LATEST * 10**9}
    return tuple(  # type: ignore[return-value]
        {path: node._replace(mtime=0) if path in clocked else node for path, node in tree.items()} for tree in (ours, theirs)
    )


@settings(max_examples=EXAMPLES or 60, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=LAYERS, seed=st.integers(0, 1000))
def test_layers_unpacked_apart_are_what_umoci_makes_one_upon_another(
    layers: list[list[object]], seed: int, service: UnpackerService
) -> None:
    image = Image([tar(*layer) for layer in layers])
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        theirs = umoci_unpack(image, base)
        event(f"umoci {'unpacked' if theirs else 'refused'}")
        assume(theirs is not None)
        service.unpack(image, seed)
        with mounted(service.root, image, base / "mounted") as ours:
            assert differences(*without_times_of_the_clock(read_tree(ours), read_tree(theirs))) == []

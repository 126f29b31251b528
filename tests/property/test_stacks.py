"""Random layers over random trees, packed by GNU tar and by Python, unpacked by us each on its own and in any order, mounted by
overlayfs, and compared with GNU tar, which applies them one upon another."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from tests.support.gnu_tar import Stack
from tests.support.layers import Image, UnpackerService, mounted
from tests.support.packing import PACKERS, Thing, make, pack
from tests.support.trees import Node, differences, read_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, owners and devices need root")

EXAMPLES = int(os.environ.get("PULLONCE_EXAMPLES", "0"))
"""Where it is set, that many are drawn at random; otherwise always the same ones."""

SECOND = 10**9
NAMES = st.sampled_from([b"a", b"b", b"c", b"\xc3\xa9"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
TIMES = st.sampled_from([0, 1, 1_600_000_000, 4_000_000_000, 8_589_934_591]).flatmap(
    lambda seconds: st.sampled_from([0, 0, 500_000_000, 123_456_789]).map(lambda part: seconds * SECOND + part)
)
XATTRS = st.dictionaries(
    st.sampled_from(["user.one", "trusted.two"]), st.sampled_from([b"1", b"two words=\n", b""]), max_size=2
)

THINGS = st.lists(
    st.builds(
        Thing,
        path=PATHS,
        kind=st.sampled_from(["file", "file", "dir", "dir", "symlink", "hardlink", "fifo", "device", "sparse"]),
        content=st.one_of(st.binary(max_size=40), st.sampled_from([b"a", b"b/c", b"../a", b"missing"])),
        # No directory hands on its group: GNU tar sets that bit last, and umoci's tree is compared for it (test_layers.py).
        mode=st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o1777]),
        owner=st.tuples(st.integers(0, 3), st.integers(0, 3)),
        mtime=TIMES,
        xattrs=XATTRS,
    ),
    min_size=1,
    max_size=8,
)


class Drawn(NamedTuple):
    """A layer to be made."""

    things: list[Thing]
    whiteouts: list[bytes]
    opaque: list[bytes]
    links: list[tuple[bytes, int]]
    """Names to link to files of the layers below: to which of them, by a number."""
    packer: str
    seed: int
    """Decides which directories go without an entry of their own."""


LAYERS = st.lists(
    st.builds(
        Drawn,
        things=THINGS,
        whiteouts=st.lists(PATHS, max_size=2),
        opaque=st.lists(PATHS, max_size=1),
        links=st.lists(st.tuples(PATHS, st.integers(0, 9)), max_size=2),
        packer=st.sampled_from([*PACKERS, "--format=ustar"]),
        seed=st.integers(0, 99),
    ),
    min_size=2,
    max_size=4,
)


def tar_of(drawn: Drawn, place: Path, below: list[bytes]) -> bytes:
    """A layer's tar. `below`: the files that the layers below it have."""
    plain = drawn.packer == "--format=ustar"  # has no attributes
    things = [thing._replace(xattrs={}) if plain else thing for thing in drawn.things]
    root = os.fsencode(place)
    make(root, things)
    absent = [target for name, number in drawn.links if below and (target := _link(root, name, below[number % len(below)]))]
    for parent, name in [*(os.path.split(path) for path in drawn.whiteouts), *((path, b".wh..opq") for path in drawn.opaque)]:
        _mark(root, parent, b".wh." + name)
    rng = random.Random(drawn.seed)
    names = [
        name
        for name, node in sorted(read_tree(place).items())
        if name not in absent and not (stat.S_ISDIR(node.kind) and rng.random() < 0.3)
    ]
    return pack(place, drawn.packer, names, absent) if names else bytes(10240)


def _link(root: bytes, name: bytes, target: bytes) -> bytes | None:
    """Make a hard link to a file that this layer does not have; what it is called, None where there is no place for that."""
    try:
        for each in (name, target):
            os.makedirs(os.path.dirname(root + b"/" + each), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(root + b"/" + target, os.O_CREAT | os.O_EXCL))
    except OSError:
        return None
    try:
        os.link(root + b"/" + target, root + b"/" + name)
    except OSError:
        os.unlink(root + b"/" + target)  # noqa: PTH108
        return None
    return target


def _mark(root: bytes, parent: bytes, name: bytes) -> None:
    """Leave a whiteout, where its directory can be made."""
    try:
        os.makedirs(root + b"/" + parent, exist_ok=True)  # noqa: PTH103
        with open(root + b"/" + parent + b"/" + name, "xb"):
            pass
    except OSError:
        pass


def by_gnu_tar(layers: list[Drawn], base: Path) -> tuple[list[bytes], dict[bytes, Node]]:
    """The layers up to the first that GNU tar refuses, and the tree that it makes of them; times where a layer gave them."""
    stack, tars, tree = Stack(base / "tree"), [], {}
    for number, drawn in enumerate(layers):
        # A further name for a file of several parts it from those in the layers below, as it does wherever overlayfs copies up.
        files = (path for path, node in read_tree(stack.root).items() if stat.S_ISREG(node.kind) and not node.links)
        below = sorted(files)
        made = tar_of(drawn, base / f"layer-{number}", below)
        (base / "layer.tar").write_bytes(made)
        try:
            stack.apply(base / "layer.tar")
        except (ValueError, subprocess.CalledProcessError):  # a link leads out of the tree, or to what the layer hides
            event("a layer that GNU tar refuses")
            break
        tars.append(made)
        named = {b"" if name == "." else os.fsencode(name) for name in stack.named}
        tree = {path: node if path in named else timeless(node) for path, node in read_tree(stack.root).items()}
    return tars, tree


def timeless(node: Node) -> Node:
    """A directory that no layer names got its time from the clock."""
    return node._replace(mtime=0) if stat.S_ISDIR(node.kind) else node


def remarkable(node: Node) -> Iterator[str]:
    """What is awkward about a file, for the statistics of the test."""
    yield from ["extended attributes"] * bool(node.xattrs) + ["a hard link"] * bool(node.links)
    yield from ["a device"] * stat.S_ISCHR(node.kind) + ["a time after 2242"] * (node.mtime > 8_589_934_590 * SECOND)
    yield from ["a fraction of a second"] * bool(node.mtime % SECOND)


@settings(max_examples=EXAMPLES or 100, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=LAYERS, seed=st.integers(0, 1000))
def test_layers_mounted_are_what_gnu_tar_makes_one_upon_another(
    layers: list[Drawn], seed: int, service: UnpackerService
) -> None:
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        tars, theirs = by_gnu_tar(layers, base)
        assume(tars)
        event(f"{len(tars)} layers")
        for what in {what for node in theirs.values() for what in remarkable(node)}:
            event(what)
        image = Image(tars)
        service.unpack(image, seed)
        with mounted(service.root, image, base / "mounted") as ours:
            tree = read_tree(ours)
            clocked = {path for path, node in theirs.items() if node == timeless(node) and stat.S_ISDIR(node.kind)}
            assert differences({p: timeless(n) if p in clocked else n for p, n in tree.items()}, theirs) == []

"""Random trees, packed by GNU tar and by Python in every dialect, unpacked by us: the same tree again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pullonce.store.snapshots import Snapshots
from tests.support.layers import Image, UnpackerService
from tests.support.packing import PACKERS, Thing, make, pack
from tests.support.trees import differences, read_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")

EXAMPLES = int(os.environ.get("PULLONCE_EXAMPLES", "0"))
"""Where it is set, that many are drawn at random; otherwise always the same ones."""

LETTERS = st.sampled_from([b"a", b"b", b".c", b"sp ace", b"\xc3\xa9", b"\xff", b"n" * 90, b"m" * 200, b"-x", b"*"])
PATHS = st.lists(LETTERS, min_size=1, max_size=4).map(b"/".join)


THINGS = st.lists(
    st.builds(
        Thing,
        path=PATHS,
        kind=st.sampled_from(["file", "file", "dir", "symlink", "hardlink", "fifo", "device", "sparse"]),
        content=st.one_of(st.binary(max_size=2000), st.integers(0, 5000).map(lambda n: b"x" * n)),
        mode=st.integers(0, 0o7777),
        owner=st.tuples(st.sampled_from([0, 1, 65534, 3_000_000]), st.sampled_from([0, 7, 2_097_152])),
        mtime=st.integers(0, 4_000_000_000).map(lambda seconds: seconds * 10**9),
        xattrs=st.dictionaries(st.sampled_from(["user.one", "trusted.two"]), st.binary(max_size=20)),
    ),
    max_size=12,
)


@settings(max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(things=THINGS, packer=st.sampled_from(PACKERS))
def test_what_was_packed_comes_out_again(things: list[Thing], packer: str, service: UnpackerService) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        pax = packer.startswith("--format=posix") or packer == "python pax"
        make(os.fsencode(source), things if pax else [thing._replace(xattrs={}) for thing in things])
        image = Image([pack(source, packer)])
        service.unpack(image)
        made = read_tree(Snapshots(service.root).path(image.top))
        # tarfile's pax times are floats; whole seconds go through unharmed.
        assert differences(made, read_tree(source)) == []

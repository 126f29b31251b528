"""Random trees, packed by GNU tar and by Python in every dialect, unpacked by us: the same tree again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pullonce.snapshots import Snapshots
from tests.support.layers import Image, unpack_all, unpacker
from tests.support.trees import differences, read_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")

EXAMPLES = int(os.environ.get("PULLONCE_EXAMPLES", "0"))
"""Where it is set, that many are drawn at random; otherwise always the same ones."""

LETTERS = st.sampled_from([b"a", b"b", b".c", b"sp ace", b"\xc3\xa9", b"\xff", b"n" * 90, b"m" * 200, b"-x", b"*"])
PATHS = st.lists(LETTERS, min_size=1, max_size=4).map(b"/".join)


class Thing(NamedTuple):
    """A file to be made."""

    path: bytes
    kind: str
    content: bytes
    mode: int
    owner: tuple[int, int]
    mtime: int


THINGS = st.lists(
    st.builds(
        Thing,
        path=PATHS,
        kind=st.sampled_from(["file", "file", "dir", "symlink", "hardlink", "fifo", "device", "sparse"]),
        content=st.one_of(st.binary(max_size=2000), st.integers(0, 5000).map(lambda n: b"x" * n)),
        mode=st.integers(0, 0o7777),
        owner=st.tuples(st.sampled_from([0, 1, 65534, 3_000_000]), st.sampled_from([0, 7, 2_097_152])),
        mtime=st.integers(0, 4_000_000_000),
    ),
    max_size=12,
)


def make(root: bytes, things: list[Thing]) -> None:
    """Make a tree; names that are in each other's way are left out."""
    os.mkdir(root)  # noqa: PTH102
    made: list[Thing] = []
    files: list[bytes] = []
    for thing in things:
        place = root + b"/" + thing.path
        if passes_a_link(root, thing.path):
            continue
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120
            _make_one(place, thing, files)
        except (FileExistsError, NotADirectoryError):
            continue
        made.append(thing._replace(path=place))
    for thing in sorted(made, reverse=True):
        os.chown(thing.path, *thing.owner, follow_symlinks=False)
        if thing.kind != "symlink":
            os.chmod(thing.path, thing.mode)  # noqa: PTH101
    for directory, _, _ in os.walk(root, topdown=False):
        os.utime(directory, (1, 1_234_567_890))
    for thing in sorted(made, reverse=True):
        os.utime(thing.path, (1, thing.mtime), follow_symlinks=False)


def passes_a_link(root: bytes, path: bytes) -> bool:
    """A name behind a symbolic link lies wherever that leads, perhaps outside the tree: none is made."""
    parts = path.split(b"/")
    return any(os.path.islink(root + b"/" + b"/".join(parts[:depth])) for depth in range(1, len(parts)))  # noqa: PTH114


def _make_one(place: bytes, thing: Thing, files: list[bytes]) -> None:
    match thing.kind:
        case "dir":
            os.mkdir(place)  # noqa: PTH102
        case "symlink":
            os.symlink(thing.content[:150].replace(b"\0", b"-") or b"target", place)  # noqa: PTH211
        case "hardlink" if files:
            os.link(files[-1], place)
        case "fifo":
            os.mkfifo(place)
        case "device":
            os.mknod(place, 0o20600, os.makedev(1, 5))
        case _:
            with open(place, "xb") as file:
                file.write(thing.content)
                if thing.kind == "sparse":
                    file.truncate(len(thing.content) + 300_000)
                    file.seek(0, os.SEEK_END)
                    file.write(b"end")
            files.append(place)


def pack(root: Path, packer: str) -> bytes:
    """A tar of a tree."""
    if packer.startswith("python"):
        form = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}[packer.split()[1]]
        target = root.with_suffix(".tar")
        with tarfile.open(target, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
            archive.add(root, ".")
        return target.read_bytes()
    return subprocess.run(["tar", "-c", *packer.split(), "-C", root, "."], check=True, capture_output=True).stdout


PACKERS = [
    "--format=gnu",
    "--format=posix",
    "--format=posix --sparse",
    "--format=gnu --sparse",
    "--format=oldgnu",
    "python gnu",
    "python pax",
]


async def unpack(root: Path, image: Image) -> None:
    async with unpacker(root, workers=1) as running:
        image.store(running.content)
        await unpack_all(running, image.orders())


@settings(max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(things=THINGS, packer=st.sampled_from(PACKERS))
def test_what_was_packed_comes_out_again(things: list[Thing], packer: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "source"
        make(os.fsencode(source), things)
        image = Image([pack(source, packer)])
        asyncio.run(unpack(Path(place) / "store", image))
        made = read_tree(Snapshots(Path(place) / "store").path(image.top))
        # tarfile's pax times are floats; whole seconds go through unharmed.
        assert differences(made, read_tree(source)) == []

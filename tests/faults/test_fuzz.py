"""Layers that nobody would write: whatever the bytes, a clear refusal or a tree below its root, and nothing else touched.

`PULLONCE_EXAMPLES=20000` draws that many at random; otherwise they are always the same ones, so that no build fails by chance.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import zstandard
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from services.unpacker.tar.archive import Archive
from services.unpacker.tar.compression import chunks
from services.unpacker.tar.invalid import LayerError
from services.unpacker.tree.layer import Layer
from services.unpacker.tree.rights import Rights
from tests.support.layers import entry, tar
from tests.support.trees import differences, read_tree

EXAMPLES = int(os.environ.get("PULLONCE_EXAMPLES", "0"))
BLOCK = 512

SAID_OF_LAYERS = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EMLINK}
"""What the file system may say to names that no layer should have; the unpacker blames the layer for these."""


def fuzz(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return settings(
        max_examples=EXAMPLES or examples, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck)
    )


# -- archives of strange entries -------------------------------------------------------------------------------------------

PARTS = st.sampled_from(
    ["a", "b", "link", "..", ".", "", "outside", "victim", ".wh.a", ".wh.link", ".wh..", ".wh.", ".wh..wh..opq", ".wh..wh.plnk",
     "\udcff\udcfe", "x" * 255, "y" * 256, "\n", "a\\b"]
)  # fmt: skip
NAMES = st.builds(
    lambda root, parts, slash: root + "/".join(parts) + slash,
    st.sampled_from(["", "/", "./", "//", "../"]),
    st.lists(PARTS, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)
TARGETS = st.one_of(NAMES, st.sampled_from(["/", "/proc/self/root", "../" * 30 + "etc", "OUTSIDE", "OUTSIDE/victim", "link"]))
KINDS = ("file", "dir", "symlink", "hardlink", "fifo", "char", "block")


@st.composite
def strange(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, object]]:
    kind = draw(st.sampled_from(KINDS))
    fields: dict[str, object] = {"mode": draw(st.integers(0, 0o7777)), "uid": draw(st.integers(0, 1 << 33))}
    fields["mtime"] = draw(st.integers(-(1 << 40), 1 << 40))
    if kind in ("symlink", "hardlink"):
        fields["linkname"] = draw(TARGETS)
    if kind in ("char", "block"):
        fields |= {"devmajor": draw(st.integers(0, 9)), "devminor": draw(st.integers(0, 9))}
    if draw(st.booleans()):
        fields["xattrs"] = draw(
            st.dictionaries(
                st.sampled_from(
                    ["user.x", "trusted.overlay.opaque", "user.overlay.redirect", "security.capability", "bad", ""]
                ),
                st.one_of(st.text("ab\0\n=", max_size=9), st.just("v" * 5000), st.just("v" * 70_000)),
                max_size=2,
            )
        )
    return draw(NAMES), kind, draw(st.binary(max_size=700)) if kind == "file" else b"", fields


@fuzz(300)
@given(layer=st.lists(strange(), min_size=1, max_size=10))
def test_nothing_outside_the_root_is_touched(layer: list[tuple[str, str, bytes, dict[str, object]]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        outside = base / "outside"
        outside.mkdir()
        (outside / "victim").write_text("untouched")
        (outside / "link").symlink_to("victim")
        before = read_tree(outside)
        event(unpacked(base, _archive(layer, outside)))
        assert differences(read_tree(outside), before) == []
        assert {path.name for path in base.iterdir()} == {"outside", "tree", "trash"}


def _archive(layer: list[tuple[str, str, bytes, dict[str, object]]], outside: Path) -> bytes:
    made = []
    for name, kind, content, fields in layer:
        given_fields = dict(fields)
        if "linkname" in given_fields:
            given_fields["linkname"] = str(given_fields["linkname"]).replace("OUTSIDE", str(outside))
        made.append(entry(name.replace("OUTSIDE", str(outside)), kind, content, **given_fields))
    return tar(*made)


def unpacked(base: Path, archive: bytes) -> str:
    """Unpack below `base/tree`; what came of it, in a word. Anything but a clear refusal propagates."""
    for name in ("tree", "trash"):
        (base / name).mkdir()
    root, trash = (os.open(base / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("tree", "trash"))
    try:
        layer = Layer(root, trash, rights=Rights(opaque=b"user.overlay.opaque"), links_below={})
        layer.unpack(Archive(iter([archive]), max_entries=1000))
    except LayerError:
        return "refused"
    except OSError as exc:
        assert exc.errno in SAID_OF_LAYERS, exc
        return "refused by the file system"
    finally:
        os.close(root)
        os.close(trash)
    return "unpacked"


# -- archives of broken bytes ------------------------------------------------------------------------------------------------

SEED = tar(
    entry("d/", "dir"),
    entry("d/f", content=b"f" * 700, xattrs={"user.x": "y"}),
    entry("l" * 150, "symlink", linkname="d/f"),
    entry("h", "hardlink", linkname="d/f"),
    entry("d/.wh..wh..opq"),
    entry("node", "char", devmajor=1, devminor=3),
)
BREAKS = st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6)


def broken(breaks: list[tuple[int, bytes]], *, summed: bool) -> bytes:
    """The seed with bytes overwritten; `summed`: with checksums that are right again, so that more is looked at."""
    data = bytearray(SEED)
    for at, what in breaks:
        data[at : at + len(what)] = what
    if summed:
        for at in range(0, len(data) - BLOCK + 1, BLOCK):
            if data[at + 257 : at + 262] == b"ustar":
                data[at + 148 : at + 156] = b" " * 8
                data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    return bytes(data)


@fuzz(600)
@given(breaks=BREAKS, summed=st.booleans(), cut=st.integers(0, len(SEED)))
def test_broken_archives_are_read_or_refused(breaks: list[tuple[int, bytes]], summed: bool, cut: int) -> None:
    data = broken(breaks, summed=summed)[: cut or None]
    with tempfile.TemporaryDirectory() as place:
        event(unpacked(Path(place), data))
        assert {path.name for path in Path(place).iterdir()} == {"tree", "trash"}


@fuzz(1000)
@given(data=st.binary(max_size=3 * BLOCK))
@example(b"\0" * 100 + b"x" * 1000)
def test_noise_is_refused(data: bytes) -> None:
    archive = Archive(iter([data]) if data else iter([]))
    try:
        for _ in archive:
            while archive.data() is not None:
                pass
        archive.drain()
    except LayerError:
        event("refused")


# -- broken compression ------------------------------------------------------------------------------------------------------

PACKED = [pack(SEED * 3) for pack in (gzip.compress, zstandard.compress, bz2.compress, lzma.compress, bytes)]


@fuzz(600)
@given(
    which=st.integers(0, len(PACKED) - 1),
    breaks=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=4),
    cut=st.integers(0, 3000),
    more=st.binary(max_size=8),
)
def test_broken_compression_is_read_or_refused(which: int, breaks: list[tuple[int, bytes]], cut: int, more: bytes) -> None:
    data = bytearray(PACKED[which])
    for at, what in breaks:
        data[at % len(data) : at % len(data) + len(what)] = what
    stored = bytes(data[: cut or None]) + more
    try:
        size = sum(len(chunk) for chunk in chunks(io.BytesIO(stored)))
    except LayerError:
        event("refused")
    else:
        assert size < 1 << 24, "some bytes do not become many"

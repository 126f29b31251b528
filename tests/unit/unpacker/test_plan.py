"""Entry → step."""

import pytest

from services.unpacker.tar.entry import CHARACTER, DIRECTORY, FIFO, FILE, HARDLINK, SYMLINK, Entry
from services.unpacker.tar.invalid import Escapes, LayerError
from services.unpacker.tree.plan import Action, TreeStep, clean, plan


def named(name: bytes, kind: bytes = FILE) -> Entry:
    return Entry(name, kind)


@pytest.mark.parametrize(
    "name, cleaned",
    [
        (b"a", b"a"), (b"a/b", b"a/b"), (b"/a/b", b"a/b"), (b"./a", b"a"), (b"a/./b", b"a/b"), (b"a//b/", b"a/b"),
        (b"a/../b", b"b"), (b"a/b/../../c", b"c"), (b".", b""), (b"./", b""), (b"/", b""), (b"", b""), (b"...", b"..."),
        (b"a/.b", b"a/.b"), (b".a", b".a"), (b"a/..b", b"a/..b"), (b"\xff", b"\xff"),
    ],
)  # fmt: skip
def test_names(name: bytes, cleaned: bytes) -> None:
    assert clean(name) == cleaned


@pytest.mark.parametrize("name", [b"..", b"../a", b"/../a", b"a/../../b", b"./..", b"a/b/../../../c"])
def test_names_that_lead_out(name: bytes) -> None:
    with pytest.raises(Escapes, match="out of the root"):
        clean(name)


@pytest.mark.parametrize(
    "name, kind, step",
    [
        (b"d/f", FILE, TreeStep(Action.FILE, b"d", b"f")),
        (b"d/", DIRECTORY, TreeStep(Action.DIRECTORY, b"", b"d")),
        (b"d/l", HARDLINK, TreeStep(Action.LINK, b"d", b"l")),
        (b"l", SYMLINK, TreeStep(Action.NODE, b"", b"l")),
        (b"p", FIFO, TreeStep(Action.NODE, b"", b"p")),
        (b"c", CHARACTER, TreeStep(Action.NODE, b"", b"c")),
        (b"./", DIRECTORY, TreeStep(Action.ROOT, b"", b"")),
        (b"d/.wh.f", FILE, TreeStep(Action.WHITEOUT, b"d", b"f")),
        (b".wh.f", HARDLINK, TreeStep(Action.WHITEOUT, b"", b"f")),
        (b"d/.wh..wh..opq", FILE, TreeStep(Action.OPAQUE, b"d", b"")),
        (b".wh..wh..opq", FILE, TreeStep(Action.OPAQUE, b"", b"")),
        (b".wh..wh.aufs", FILE, TreeStep(Action.NOTHING, b"", b".wh..wh.aufs")),
        (b".wh..wh.orph", DIRECTORY, TreeStep(Action.NOTHING, b"", b".wh..wh.orph")),
        (b".wh..wh.plnk", DIRECTORY, TreeStep(Action.DIRECTORY, b"", b".wh..wh.plnk")),
        (b".wh..wh.plnk/12.3", FILE, TreeStep(Action.FILE, b".wh..wh.plnk", b"12.3")),
    ],
)
def test_steps(name: bytes, kind: bytes, step: TreeStep) -> None:
    assert plan(named(name, kind)) == step


@pytest.mark.parametrize(
    "name, kind", [(b".", FILE), (b"/", SYMLINK), (b".wh.", FILE), (b"d/.wh..", FILE), (b"d/.wh...", FILE)]
)
def test_refused(name: bytes, kind: bytes) -> None:
    with pytest.raises(LayerError):
        plan(named(name, kind))

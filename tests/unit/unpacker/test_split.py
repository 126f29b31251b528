"""The lines of tar-split, however the tar comes in pieces."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from services.unpacker.tar.invalid import LayerError
from services.unpacker.tar.split import plain, split
from tests.support.awkward import BASE
from tests.support.odd_tars import END, ENDINGS, READ, REFUSED

TARS = {"an ordinary one": BASE, **{what: each + END for what, each in READ.items()}, **ENDINGS}


class Content:
    """What a tree has under a name."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int, offset: int) -> bytes:
        return self._content[offset : offset + size]

    def close(self) -> None:
        pass


def lines(tar: bytes, piece: int, files: dict[bytes, bytes]) -> list[dict[str, Any]]:
    written: list[bytes] = []
    pieces = iter([tar[at : at + piece] for at in range(0, len(tar), piece)])
    split(pieces, lambda name, size: Content(files[name]) if len(files.get(name, b"")) == size else None, written.append)
    return [json.loads(line) for line in written]


def joined(found: list[dict[str, Any]], files: dict[bytes, bytes]) -> bytes:
    return b"".join(base64.b64decode(each["payload"]) if each["type"] == 2 else files[each["name"].encode()] for each in found)


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 1 << 20])
def test_nothing_is_lost_between_pieces(piece: int) -> None:
    files = {b"etc/a": b"a", b"etc/b": b"B", b"opt/sub/y": b"y"}
    for what, tar in TARS.items():
        found = lines(tar, piece, files)
        assert joined(found, files) == tar, what
    told = lines(BASE, piece, files)
    assert [each["name"] for each in told if each["type"] == 1] == ["etc/a", "opt/sub/y"], "what is equal, and nothing else"


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_layer_may_be_is_refused(what: str) -> None:
    with pytest.raises(LayerError):
        lines(REFUSED[what], 512, {})


@pytest.mark.parametrize(
    "name, found",
    [
        (b"./a//b/", b"a/b"),
        (b"/a", b"a"),
        (b"a/../b", b""),
        (b"..", b""),
        (b".", b""),
        (b"", b""),
        (b"a" * 4000, b""),
        (b"\xff", b"\xff"),
    ],
)
def test_names_below_a_tree(name: bytes, found: bytes) -> None:
    assert plain(name) == found

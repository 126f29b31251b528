"""Archives that tools read differently: containerd is asked, and we make the same tree, or refuse as it does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containerd import Judge, Refused
from tests.support.layers import Image, entry, fails, mounted, tar, unpack_all, unpacker
from tests.support.odd_tars import END, ENDINGS, READ, REFUSED
from tests.support.trees import Node, differences, read_tree

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and owners need root"),
    pytest.mark.skipif(not Judge.present(), reason="containerd is not installed: apt-get install containerd"),
]

BELOW = tar(entry("thirty", content=b"is hidden"), entry("thirtyone", "dir"), entry("thirtyone/x", content=b"is hidden"))


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    with Judge(tmp_path_factory.mktemp("containerd")) as running:
        yield running


def known(tree: Path) -> dict[bytes, Node]:
    """All but the root. A directory with something in it may be named by no entry: its time is then whoever's made it."""
    found = read_tree(tree)
    del found[b""]
    parents = {name.rpartition(b"/")[0] for name in found}
    return {name: node._replace(mtime=0) if name in parents else node for name, node in found.items()}


async def test_what_containerd_reads_is_read_the_same(containerd: Judge, tmp_path: Path) -> None:
    """One layer for each, in one image."""
    image = Image([BELOW, *(data + END for data in READ.values()), *ENDINGS.values()])
    async with unpacker(tmp_path / "store") as running:
        image.store(running.content)
        await unpack_all(running, image.orders())
    with containerd.mounted(image) as theirs, mounted(tmp_path / "store", image, tmp_path / "mounted") as ours:
        assert differences(known(ours), known(theirs)) == []
        assert {b"thirtythree", b"twentysix"} <= known(ours).keys()
        assert not {b"inside", b"lost", b"thirty"} & known(ours).keys()


async def test_what_containerd_refuses_is_the_layers_fault(containerd: Judge, tmp_path: Path) -> None:
    async with unpacker(tmp_path) as running:
        for odd, data in REFUSED.items():
            image = Image([data])
            with pytest.raises(Refused), containerd.mounted(image):
                pytest.fail(f"containerd unpacks {odd}")
            image.store(running.content)
            fact = await fails(running, image)
            assert (fact.code, fact.concerns) == ("layer.invalid", "source"), f"{odd}: {fact.message}"

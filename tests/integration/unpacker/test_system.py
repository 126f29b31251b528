"""Files of a real system, the one the tests run on, in two layers: the same as umoci makes of them.

With `PULLONCE_LAYOUT` set to an OCI layout that holds one image, that image is compared too.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pullonce.store.mounting import mount, unmount
from pullonce.store.snapshots import Snapshots
from tests.support.layers import Image, entry, tar, umoci_unpack, unpack_all, unpacker
from tests.support.trees import differences, read_tree

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts need root"),
    pytest.mark.skipif(not shutil.which("umoci") and os.environ.get("CI") != "true", reason="umoci is not installed"),
]

PARTS = ["etc", "usr/sbin", "usr/share/zoneinfo", "usr/share/perl5", "bin", "sbin", "lib"]


def pack_system() -> bytes:
    """Some ten thousand files with whatever owners, links, set-id bits and capabilities a distribution gives them."""
    parts = [part for part in PARTS if os.path.lexists(f"/{part}")]
    options = ["--format=posix", "--xattrs", "--xattrs-include=*", "--sort=name", "--one-file-system", "--ignore-failed-read"]
    return subprocess.run(["tar", "-c", *options, "-C", "/", *parts], check=True, capture_output=True).stdout


def compare(image: Image, place: Path) -> list[str]:
    """Differences between ours, mounted, and umoci's."""

    async def unpack() -> None:
        async with unpacker(place / "store") as running:
            image.store(running.content)
            await unpack_all(running, image.orders())

    theirs = umoci_unpack(image, place)
    assert theirs is not None
    asyncio.run(unpack())
    (place / "mounted").mkdir()
    mount(Snapshots(place / "store").overlay(image.top), place / "mounted")
    try:
        ours = read_tree(place / "mounted")
    finally:
        unmount(place / "mounted", lazily=True)
    clocked = {b"", b"lib", b"opt", b"usr", b"usr/share", b"usr/lib"}
    wanted = read_tree(theirs)
    return differences(*({p: n._replace(mtime=0) if p in clocked else n for p, n in t.items()} for t in (ours, wanted)))


def test_a_real_system_and_a_layer_upon_it(tmp_path: Path) -> None:
    upper = tar(
        entry("lib/through-a-link", content=b"merged /usr"),
        entry("etc/.wh.passwd"),
        entry("usr/share/perl5/.wh..wh..opq"),
        entry("usr/share/perl5/Only.pm", content=b"1;"),
        entry("opt/hosts", "hardlink", linkname="etc/hosts"),
    )
    assert compare(Image([pack_system(), upper]), tmp_path) == []


@pytest.mark.skipif("PULLONCE_LAYOUT" not in os.environ, reason="PULLONCE_LAYOUT names no image to compare")
def test_an_image_of_your_own(tmp_path: Path) -> None:
    layout = Path(os.environ["PULLONCE_LAYOUT"])

    def read(digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

    manifest = json.loads(read(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]))
    image = Image([], [read(layer["digest"]) for layer in manifest["layers"]], manifest["layers"][0]["mediaType"])
    image.set_diff_ids(json.loads(read(manifest["config"]["digest"]))["rootfs"]["diff_ids"])
    assert compare(image, tmp_path) == []

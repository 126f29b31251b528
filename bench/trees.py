"""Are unpacked trees what others make of the same layers? Every image of the benchmarks, pulled by us and mounted, is compared
with `umoci unpack` and with GNU tar, layer upon layer.

    ./dev bench trees                                       images made of this machine's packages
    ./dev bench trees --storage DIR --images redis,golang,golang:zstd,ml,multi

Compared are names, types, modes, owners, sizes, times in nanoseconds, content by SHA-256, targets of symbolic links, which
names are one file, extended attributes and device numbers. Not compared (`no time`) is the time of directories that no layer
names: whoever makes them asks the clock. Two limits of umoci 0.4: it leaves the time of the clock also to a named directory in
which it had to make another one, which only GNU tar's tree is compared for; and it reads no zstd, so that it gets such layers
without compression. Exits 1 where anything differs. Needs root, skopeo, umoci, GNU tar, gzip and zstd.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools import images
from bench.tools.peers import Ours
from bench.tools.registry import Registry, serving
from bench.tools.results import show
from bench.tools.usage import Group
from tests.support.gnu_tar import Stack
from tests.support.images import digest_of
from tests.support.trees import Node, differences, read_tree

Tree = dict[bytes, Node]

_SHOWN = 20
"""Differences that are printed of each image and tool."""

_DECOMPRESS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-qdc"]}


@contextmanager
def ours(registry: Registry, image: str, place: Path) -> Iterator[Path]:
    """The image as we pull, unpack and mount it."""
    group = Group("services")
    peer, target = Ours(place, registry.host, group), place / "mounted"
    target.mkdir()
    try:
        peer.start()
        pull = peer.pull(image)
        subprocess.run(pull, check=True, env=peer.environ)
        subprocess.run([pull[0], "mount", pull[-1], target], check=True, env=peer.environ)
        try:
            yield target
        finally:
            subprocess.run([pull[0], "umount", target], check=True, env=peer.environ)
    finally:
        peer.stop()
        group.close()


class Layout:
    """An image as an OCI layout, to be read by the other tools: `test` is its only reference."""

    def __init__(self, host: str, image: str, place: Path) -> None:
        self.place = place
        source = f"docker://{host}/{image}"
        subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", source, f"oci:{place}:test"], check=True)

    def layers(self) -> list[dict[str, Any]]:
        """Descriptors, bottom first."""
        return list(self._manifest()["layers"])

    def decompress(self, layer: dict[str, Any], target: Path) -> None:
        """Write a layer's tar."""
        suffix = str(layer["mediaType"]).rpartition("+")[2].rpartition(".")[2]
        with target.open("wb") as out:
            subprocess.run([*_DECOMPRESS.get(suffix, ["cat"]), self._blob(layer["digest"])], stdout=out, check=True)

    def drop_zstd(self) -> None:
        """Have zstd layers lie there uncompressed."""
        manifest = self._manifest()
        if not any(str(layer["mediaType"]).endswith("+zstd") for layer in manifest["layers"]):
            return
        manifest["layers"] = [self._plain(layer) for layer in manifest["layers"]]
        content = json.dumps(manifest).encode()
        digest = digest_of(content)
        self._blob(digest).write_bytes(content)
        index = self._index()
        index["manifests"][0] |= {"digest": digest, "size": len(content)}
        (self.place / "index.json").write_text(json.dumps(index))

    def _plain(self, layer: dict[str, Any]) -> dict[str, Any]:
        growing = self.place / "plain"
        self.decompress(layer, growing)
        with growing.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        size = growing.stat().st_size
        growing.rename(self._blob(digest))
        return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}

    def _blob(self, digest: str) -> Path:
        return self.place / "blobs" / digest.replace(":", "/")

    def _index(self) -> dict[str, Any]:
        return dict(json.loads((self.place / "index.json").read_text()))

    def _manifest(self) -> dict[str, Any]:
        return dict(json.loads(self._blob(self._index()["manifests"][0]["digest"]).read_bytes()))


def by_tar(layout: Layout, place: Path) -> tuple[Tree, set[bytes]]:
    """The tree by GNU tar; and the directories that no layer names."""
    stack = Stack(place / "tree")
    for layer in layout.layers():
        layout.decompress(layer, place / "layer.tar")
        stack.apply(place / "layer.tar")
    tree = read_tree(stack.root)
    named = {b"" if name == "." else os.fsencode(name) for name in stack.named}
    return tree, {path for path, node in tree.items() if stat.S_ISDIR(node.kind)} - named


def by_umoci(layout: Layout, place: Path) -> Tree:
    """The tree by `umoci unpack`."""
    layout.drop_zstd()
    subprocess.run(["umoci", "unpack", "--image", f"{layout.place}:test", place / "bundle"], check=True)
    return read_tree(place / "bundle" / "rootfs")


def without_times(tree: Tree, paths: set[bytes]) -> Tree:
    return {path: node._replace(mtime=0) if path in paths else node for path, node in tree.items()}


def compare(registry: Registry, image: str, parent: Path | None) -> Iterator[list[str]]:
    """Rows of the table for one image; what differs goes to stderr."""
    start = time.time_ns()
    with tempfile.TemporaryDirectory(dir=parent) as place, ours(registry, image, Path(place)) as mounted:
        tree = read_tree(mounted)
    with tempfile.TemporaryDirectory(dir=parent) as place:
        layout = Layout(registry.host, image, Path(place) / "layout")
        of_tar, clocked = by_tar(layout, Path(place))
    with tempfile.TemporaryDirectory(dir=parent) as place:
        of_umoci = by_umoci(Layout(registry.host, image, Path(place) / "layout"), Path(place))
    kinds = Counter(stat.S_IFMT(node.kind) for node in tree.values())
    linked, marked = sum(bool(node.links) for node in tree.values()), sum(bool(node.xattrs) for node in tree.values())
    counts = [kinds[stat.S_IFREG], kinds[stat.S_IFDIR], kinds[stat.S_IFLNK], linked, marked]
    clocked_by_umoci = {path for path, node in of_umoci.items() if stat.S_ISDIR(node.kind) and node.mtime >= start}
    for name, theirs, timeless in (("GNU tar", of_tar, clocked), ("umoci", of_umoci, clocked | clocked_by_umoci)):
        found = differences(without_times(tree, timeless), without_times(theirs, timeless))
        for line in found[:_SHOWN]:
            print(f"{image}, {name}: {line}", file=sys.stderr)
        yield [image, name, str(len(tree | theirs)), *map(str, counts), str(len(timeless)), str(len(found))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: [word if ":" in word else f"{word}:latest" for word in text.split(",")]  # noqa: E731
    parser.add_argument("--storage", type=Path, help="a registry's storage directory to serve, instead of images made here")
    parser.add_argument("--images", type=words, default=words("small,large,large:zstd,single,many"))
    parser.add_argument("--place", type=Path, help="where trees are made; some 4 GB for the largest image (default: TMPDIR)")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as home, serving(given.storage or Path(home) / "content", Path(home)) as registry:
        if given.storage is None:
            images.push_all(registry.host)
        for image in given.images:
            for row in compare(registry, image, given.place):
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
    show(["image", "beside", "entries", "files", "dirs", "symlinks", "hard links", "xattrs", "no time", "differences"], rows)
    sys.exit(any(row[-1] != "0" for row in rows))


if __name__ == "__main__":
    main()

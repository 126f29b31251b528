"""Images made of the files of this machine's Debian packages: no network, the same bytes for the same packages.

small    6 layers, some 35 MB compressed: like redis
large    7 layers, some 290 MB: like golang
large:zstd    the same, in zstd
single   one layer of some 380 MB and a small one
many     40 layers of next to nothing
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator

import zstandard
from isal import igzip

from tests.support.images import Layer, digest_of, image, push

_MB = 1_000_000
_SHAPES: dict[str, list[int]] = {
    "small:latest": [77 * _MB, 3 * _MB, 14 * _MB, 10_000, 10_000, 10_000],
    "large:latest": [120 * _MB, 50 * _MB, 180 * _MB, 235 * _MB, 260 * _MB, 10_000, 10_000],
    "single:latest": [77 * _MB, 1200 * _MB],
    "many:latest": [80_000] * 40,
}
"""Bytes of tar in each layer, as far as the machine has so many."""


def push_all(host: str, only: str = "") -> None:
    """Make all images, or one of them, and push them."""
    for name, sizes in _SHAPES.items():
        repository, _, tag = name.partition(":")
        if only and repository != only.partition(":")[0]:
            continue
        tars = list(_tars(sizes))
        push(host, repository, tag, image([Layer(igzip.compress(tar, compresslevel=3), digest_of(tar)) for tar in tars]))
        if repository == "large":
            packed = [Layer(zstandard.compress(tar, 3), digest_of(tar), "zstd") for tar in tars]
            push(host, repository, "zstd", image(packed))


def _tars(sizes: list[int]) -> Iterator[bytes]:
    """Tars of about these sizes out of the files of installed packages, in the order of their names."""
    files = _files()
    for number, size in enumerate(sizes):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            marker = tarfile.TarInfo(f"layer-{number}")
            tar.addfile(marker)
            while buffer.tell() < size and (path := next(files, None)):
                try:
                    tar.add(path, recursive=False)
                except OSError:
                    continue
        yield buffer.getvalue()


def _files() -> Iterator[str]:
    listed = subprocess.run(["dpkg-query", "-W", "-f", "${binary:Package}\n"], check=True, capture_output=True, text=True)
    seen: set[str] = set()
    for package in sorted(listed.stdout.split()):
        content = subprocess.run(["dpkg", "-L", package], check=False, capture_output=True, text=True).stdout
        for path in content.splitlines():
            if path.startswith("/") and path not in seen and os.path.lexists(path):
                seen.add(path)
                yield path

"""The memory of whoever handles a layer does not grow with the layer: its peak, as the kernel tells it, after a large one."""

from __future__ import annotations

import gzip
import hashlib
import mmap
import os
import random
import re
import tarfile
from pathlib import Path

from tests.support.command import belonging_to
from tests.support.deployment import Deployment
from tests.support.images import Layer, image
from tests.support.registry import RegistryServer

LARGE = int(os.environ.get("PULLONCE_LARGE_LAYER", "300")) << 20
"""MiB that do not compress in the layer; it has twice as many that do."""
BOUND = 150
"""MB a process."""
PIECE = 4 << 20


def large_layer(place: Path) -> Layer:
    """A layer of two files, made member by member of gzip, so that it takes no time to compress and lies in no memory."""
    plain = hashlib.sha256()
    with open(place, "wb") as blob:

        def add(part: bytes, times: int = 1, level: int = 0) -> None:
            member = gzip.compress(part, level, mtime=0)
            for _ in range(times):
                blob.write(member)
                plain.update(part)

        for name, piece, count, level in (
            ("noise", random.Random(0).randbytes(PIECE), LARGE // PIECE, 0),
            ("zeros", bytes(PIECE), 2 * LARGE // PIECE, 9),
        ):
            info = tarfile.TarInfo(name)
            info.size = count * PIECE
            add(info.tobuf())
            add(piece, count, level)
        add(bytes(1024))
    with open(place, "rb") as blob:
        content = mmap.mmap(blob.fileno(), 0, access=mmap.ACCESS_READ)
    return Layer(content, f"sha256:{plain.hexdigest()}")  # type: ignore[arg-type]  # bytes, as far as anybody asks


def peaks(home: Path) -> dict[str, list[int]]:
    """The most memory in MB that each process of the fetcher and the unpacker has had, by the module it runs."""
    found: dict[str, list[int]] = {}
    for process, words in belonging_to(home).items():
        module = re.search(r"services\.(fetcher|unpacker)[\w.]*", words)
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        if module and peak:
            found.setdefault(module[0], []).append(int(peak[1]) * 1024 // 10**6)
    return found


def test_a_large_layer_takes_no_more_memory_than_a_small_one(tmp_path: Path, registry: RegistryServer) -> None:
    reference = registry.push("very/large", "1", image([large_layer(tmp_path / "blob")]))
    (tmp_path / "blob").unlink()
    deployment = Deployment(tmp_path / "home").start()
    try:
        done = deployment.run("pull", reference)
        assert done.returncode == 0, done.stderr
        found = peaks(deployment.home)
        print(f"\nMB at most, with a layer of {LARGE >> 20} MiB and three times that unpacked: {found}")
        assert found.keys() >= {"services.fetcher", "services.unpacker", "services.unpacker.work.process"}
        assert max(peak for each in found.values() for peak in each) < BOUND
    finally:
        deployment.stop()

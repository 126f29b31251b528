"""Measure unpacking: one tar against GNU tar and bsdtar, and all layers of an image through the unpacker.

    python bench/untar.py TAR                one uncompressed layer, single-threaded; ours without the start of Python
    python bench/untar.py --layout DIR       an OCI layout with one image: gzip or zstd, diffID, tree, commit

Needs root, a loop device, and memory for a fresh ext4 per run in /dev/shm: where files were deleted lately, ext4 without a
journal makes new ones several times slower. Prints wall and CPU seconds: least and median.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools.disk import fresh_disk
from pullonce.bus.memory.bus import MemoryBus
from pullonce.oci.digest import chain_ids
from pullonce.store.content import open_store
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.orders import UnpackLayer
from services.unpacker.service import unpacking
from services.unpacker.tar.archive import Archive
from services.unpacker.tar.compression import chunks
from services.unpacker.tree.layer import Layer
from services.unpacker.tree.rights import Rights
from services.unpacker.work.messages import WorkLimits


def run_ours(tar: str, target: str) -> None:
    """What a worker does with a tar, in one thread; prints wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    os.umask(0)
    for name in ("fs", "trash"):
        (Path(target) / name).mkdir()
    root, trash = (os.open(Path(target) / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("fs", "trash"))
    with open(tar, "rb", buffering=0) as file:
        layer = Layer(root, trash, rights=Rights(opaque=b"trusted.overlay.opaque"), links_below={})
        layer.unpack(Archive(chunks(file)))
    print(time.perf_counter() - wall, time.process_time() - cpu)


def ours(tar: str, target: Path) -> tuple[float, float]:
    """Wall and CPU seconds of `run_ours` in a process of its own."""
    said = subprocess.run([sys.executable, __file__, tar, "--into", target], check=True, capture_output=True, text=True).stdout
    wall, cpu = map(float, said.split())
    return wall, cpu


def measured(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def orders_of(layout: Path) -> list[UnpackLayer]:
    """The orders that unpack the one image of an OCI layout."""

    def read(digest: str) -> dict[str, object]:
        return dict(json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes()))

    index = json.loads((layout / "index.json").read_text())
    manifest: dict[str, object] = read(index["manifests"][0]["digest"])
    config = read(manifest["config"]["digest"])  # type: ignore[index]
    diff_ids = [DiffID(each) for each in config["rootfs"]["diff_ids"]]  # type: ignore[index]
    chain = chain_ids(diff_ids)
    return [
        UnpackLayer(
            chain_id=chain[n],
            diff_id=diff_ids[n],
            parent=chain[n - 1] if n else ChainID(""),
            blob=Descriptor(layer["mediaType"], Digest(layer["digest"]), layer["size"]),
            revision=n + 1,
        )
        for n, layer in enumerate(manifest["layers"])  # type: ignore[arg-type, var-annotated]
    ]


async def unpack_image(layout: Path, root: Path, workers: int) -> tuple[float, float]:
    """Wall and CPU seconds, workers included, from the orders to the last fact."""
    orders = orders_of(layout)
    content = open_store(root)
    for order in orders:
        blob = content.blob_path(order.blob.digest)
        if not blob.is_symlink():
            blob.symlink_to(layout.absolute() / "blobs" / order.blob.digest.replace(":", "/"))
            blob.read_bytes()
    async with unpacking("default", root, MemoryBus().signals, workers=workers, limits=WorkLimits()) as unpacker:
        pids = [os.getpid(), *unpacker.pool.processes()]
        before = sum(map(cpu_seconds, pids))
        start = time.perf_counter()
        await asyncio.gather(*(unpacker.unpack_layer(order) for order in orders))
        return time.perf_counter() - start, sum(map(cpu_seconds, pids)) - before


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def compare(cases: dict[str, Callable[[Path], tuple[float, float]]], repetitions: int) -> None:
    """Run the cases by turns and print what they took."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, case in cases.items():
            with fresh_disk() as place:
                results[name].append(case(place))
    print(f"{'':24} {'wall min':>9} {'median':>7} {'CPU min':>8} {'median':>7}   seconds, {repetitions} runs")
    for name, runs in results.items():
        walls, cpus = zip(*runs, strict=True)
        figures = (min(walls), statistics.median(walls), min(cpus), statistics.median(cpus))
        print(f"{name:24} {figures[0]:9.2f} {figures[1]:7.2f} {figures[2]:8.2f} {figures[3]:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar", nargs="?", help="an uncompressed layer")
    parser.add_argument("--layout", type=Path, help="an OCI layout with one image")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--into", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into:
        run_ours(given.tar, given.into)
    elif given.tar:
        Path(given.tar).read_bytes()
        cases = {"ours": lambda place: ours(given.tar, place)}
        if shutil.which("tar"):
            cases["GNU tar"] = lambda place: measured(["tar", "-xf", given.tar, "-C", str(place)])
        if shutil.which("bsdtar"):
            cases["bsdtar"] = lambda place: measured(["bsdtar", "-xf", given.tar, "-C", str(place)])
        compare(cases, given.repetitions)
    elif given.layout:
        name = f"{given.layout.name}, {given.workers} workers"
        compare({name: lambda place: asyncio.run(unpack_image(given.layout, place / "s", given.workers))}, given.repetitions)
    else:
        parser.error("a tar or --layout is needed")


if __name__ == "__main__":
    main()

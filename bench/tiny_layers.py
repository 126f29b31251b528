"""What a layer of nearly nothing costs in the unpacker: `./dev bench tiny_layers [--layers 200] [--times 5]`.

All orders come at once, their blobs are there, the workers are warm; no bus, no registry. CPU of the service and of its workers
for each layer, and the wall, as medians. Run it in two checkouts in turn to compare them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from tests.support.layers import Image, entry, tar, unpack_all, unpacker

_TICKS = os.sysconf("SC_CLK_TCK")


def own_cpu() -> float:
    """Seconds of this process, in all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(processes: list[int]) -> float:
    """Seconds of other processes. Source: proc(5), `stat`."""
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


async def once(layers: int, place: Path) -> tuple[float, float, float]:
    """Seconds of CPU in the service and in the workers, and of wall."""
    base = tar(entry("./", "dir"), *(entry(f"d{n}", "dir") for n in range(20)))
    image = Image(
        [base, *(tar(entry(f"d{n % 20}", "dir"), entry(f"d{n % 20}/f{n}", content=b"%d" % n)) for n in range(layers))]
    )
    warm = Image([tar(entry(f"w{n}")) for n in range(8)])
    async with unpacker(place, workers=2) as running:
        for each in (warm, image):
            each.store(running.content)
        await unpack_all(running, warm.orders())
        before, of_workers, begun = own_cpu(), cpu_of(running.pool.processes()), time.perf_counter()
        await unpack_all(running, image.orders())
        wall = time.perf_counter() - begun
        return own_cpu() - before, cpu_of(running.pool.processes()) - of_workers, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--place", type=Path, default=Path("/dev/shm"), help="a directory on the file system to measure on")
    args = parser.parse_args()
    found = []
    for _ in range(args.times):
        place = Path(tempfile.mkdtemp(dir=args.place))
        try:
            found.append(asyncio.run(once(args.layers, place)))
        finally:
            shutil.rmtree(place)
    service, workers, wall = (statistics.median(each) / (args.layers + 1) * 1000 for each in zip(*found, strict=True))
    print(f"ms a layer: service {service:.2f}, workers {workers:.2f}, wall {wall:.2f} (medians of {args.times})")


if __name__ == "__main__":
    main()

"""How fast blobs come from a registry on this machine into the store, beside the least that it could cost.

    python bench/fetch.py [--size MB] [--blobs N] [--at-once N] [--rounds N]

Each run is a process of its own, so that processor time and memory are its alone. `floor` reads one blob after the other with
`http.client` into one buffer, hashes and writes it, and syncs nothing; `fetch` is the fetcher's handler with all it does. Needs
docker-registry, which takes its share of the processors; some ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pullonce.bus.memory.bus import MemoryBus
from pullonce.store.content import open_store
from pullonce.store.proofs import Proofs
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from schemas.orders import FetchBlob
from services.fetcher.access import AccessRules
from services.fetcher.auth.credentials import Credentials
from services.fetcher.handlers import Handlers
from services.fetcher.remote.registry import connect
from services.fetcher.settings import AccessSettings, Bounds, RegistrySettings
from tests.support.images import Layer, digest_of, image
from tests.support.registry import RegistryServer


def floor(host: str, blobs: list[str], size: int, root: Path) -> None:
    """One blob after the other, 1 MB at a time."""
    buffer = bytearray(1 << 20)
    for digest in blobs:
        connection = http.client.HTTPConnection(host)
        connection.request("GET", f"/v2/bench/blobs/{digest}")
        response, seen = connection.getresponse(), hashlib.sha256()
        with open(root / digest.replace(":", "-"), "wb", buffering=0) as file:
            while count := response.readinto(buffer):
                view = memoryview(buffer)[:count]
                seen.update(view)
                file.write(view)
        assert f"sha256:{seen.hexdigest()}" == digest


async def fetch(host: str, blobs: list[str], size: int, root: Path, *, sync: bool, at_once: int) -> None:
    """The fetcher's handler, all blobs at once."""
    content, bus = open_store(root, sync=sync), MemoryBus()
    credentials = Credentials(root)
    async with connect(RegistrySettings(), credentials, "bench") as registry:
        access = AccessRules(registry, credentials, Proofs(content.root), AccessSettings())
        bounds = Bounds(fetches_per_registry=at_once)
        handlers = Handlers(registry, content, bus.signals, access=access, store="default", bounds=bounds)
        source = Source(registry=host, repository="bench")
        orders = [FetchBlob(blob=Descriptor(media_type="", digest=Digest(d), size=size), source=source) for d in blobs]
        await asyncio.gather(*map(handlers.fetch_blob, orders))


def memory(key: str) -> float:
    """MB of this process: `VmRSS` now, `VmHWM` at most. The kernel's ru_maxrss would count the parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def work(kind: str, host: str, size: int, at_once: int, blobs: list[str]) -> None:
    """One measured run; prints its figures."""
    import uvloop  # here, since it takes as long to load as ten small blobs to fetch, and is no part of that

    Path("/proc/self/clear_refs").write_text("5")
    resting = memory("VmRSS")
    with tempfile.TemporaryDirectory() as where:
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        if kind == "floor":
            floor(host, blobs, size, Path(where))
        else:
            runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if "uvloop" in kind else None)
            with runner:
                runner.run(fetch(host, blobs, size, Path(where), sync="unsynced" not in kind, at_once=at_once))
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall": wall, "cpu": cpu, "grown": memory("VmHWM") - resting}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=100, help="MB a blob")
    parser.add_argument("--blobs", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=3, help="blobs that are fetched at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        kind, host, size, *blobs = given.work
        return work(kind, host, int(size), given.at_once, blobs)
    with tempfile.TemporaryDirectory() as where:
        server = RegistryServer(Path(where)).start()
        try:
            layers = [Layer(os.urandom(given.size * 1_000_000), digest_of(b"")) for _ in range(given.blobs)]
            server.push("bench", "1", image(layers))
            measure(server.host, layers, given.rounds, given.at_once)
        finally:
            server.stop()


def measure(host: str, layers: list[Layer], rounds: int, at_once: int) -> None:
    """Run every kind some times and print medians."""
    size, total = len(layers[0].blob), sum(len(each.blob) for each in layers)
    print(f"{len(layers)} blob(s) of {size / 1e6:.0f} MB, median of {rounds}")
    for kind in ("floor", "fetch unsynced", "fetch", "fetch uvloop"):
        command = [sys.executable, __file__, "--at-once", str(at_once), "--work", kind, host, str(size)]
        command += [each.digest for each in layers]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(rounds)]
        wall, cpu, grown = (statistics.median(run[key] for run in runs) for key in ("wall", "cpu", "grown"))
        print(f"{kind:15} {wall:6.3f} s  {total / wall / 1e6:6.0f} MB/s  cpu {cpu:5.3f} s  memory +{grown:.0f} MB")


if __name__ == "__main__":
    main()

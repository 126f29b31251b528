"""The gateway's mirror: a blob that is there, and one that comes over a slow line: `./dev bench mirror`.

    python -m bench.mirror [--size MB] [--slow MB] [--rate MB] [--rounds N]

One client on the same machine reads into one buffer. `present` is a blob in the store, alone and by four at once; `slow` is one
that the store lacks, over a line of so many MB a second, from the request for its manifest to its last byte, beside the same
without the mirror. Bars: present 1 GB/s, slow 1.1 of direct. Needs docker-registry; some forty seconds.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.tools.setting import slow_line
from tests.integration.gateway.mirror_door import MirrorDoor
from tests.support.images import OCI_MANIFEST, Image, image, layer, push, tar_of
from tests.support.registry import RegistryServer

PRESENT, SLOW = 1.0, 1.1
MB = 1_000_000


def made(size: int) -> tuple[Image, str]:
    """An image of one layer that does not compress, and the layer's digest."""
    found = image([layer(tar_of({"file": os.urandom(size)}), "plain")])
    return found, found.layers[0]


def get(host: str, path: str) -> int:
    """Bytes of one answer, read into one buffer."""
    buffer, total = memoryview(bytearray(1 << 20)), 0
    connection = http.client.HTTPConnection(host, timeout=300)
    connection.request("GET", path, headers={"Accept": OCI_MANIFEST})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    while count := response.readinto(buffer):
        total += count
    connection.close()
    return total


def timed(host: str, *paths: str) -> float:
    began = time.perf_counter()
    for path in paths:
        get(host, path)
    return time.perf_counter() - began


def present(door: MirrorDoor, size: int, rounds: int) -> None:
    """A blob that is in the store."""
    found, digest = made(size)
    door.push(made=found)
    ns = f"?ns={door.registry.host}"
    blob = f"/v2/{door.repository}/blobs/{digest}{ns}"
    timed(door.host, f"/v2/{door.repository}/manifests/1{ns}", blob)
    length = len(found.blobs[digest])
    for clients in (1, 4):
        walls = []
        for _ in range(rounds):
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                assert list(pool.map(lambda _: get(door.host, blob), range(clients))) == [length] * clients
            walls.append(time.perf_counter() - began)
        speed = clients * length / statistics.median(walls) / 1e9
        bar = f"  (bar {PRESENT:g})" if clients == 1 else ""
        print(f"present, {length / MB:.0f} MB, {clients} at once   {speed:.2f} GB/s{bar}  {[round(wall, 3) for wall in walls]}")


def slow(door: MirrorDoor, size: int, rate: float, rounds: int) -> None:
    """A blob that comes over a slow line, by the mirror and without."""
    walls: dict[str, list[float]] = {"direct": [], "mirror": []}
    with slow_line(door.registry.host, rate) as line:
        for number in range(rounds):
            for way, host, ns in (("direct", line, ""), ("mirror", door.host, f"?ns={line}")):
                found, digest = made(size)
                push(door.registry.host, f"slow/{way}{number}", "1", found)
                paths = (f"/v2/slow/{way}{number}/{each}{ns}" for each in ("manifests/1", f"blobs/{digest}"))
                walls[way].append(timed(host, *paths))
    direct, mirror = (statistics.median(walls[way]) for way in ("direct", "mirror"))
    told = f"direct {direct:.2f} s, mirror {mirror:.2f} s: {mirror / direct:.3f} (bar {SLOW:g})"
    print(f"slow line, {size / MB:.0f} MB at {rate:g} MB/s   {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=400, help="MB of the blob that is there")
    parser.add_argument("--slow", type=int, default=26, help="MB of the one that is not")
    parser.add_argument("--rate", type=float, default=8.0, help="MB a second of the line")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        registry = RegistryServer(Path(where) / "registry").start()
        try:
            with MirrorDoor(Path(where) / "home", registry) as door:
                present(door, given.size * MB, given.rounds)
                slow(door, given.slow * MB, given.rate, given.rounds)
        finally:
            registry.stop()


if __name__ == "__main__":
    main()

"""A pull over a slow line, against the download alone: what unpacking adds when the network is the limit.

    ./dev bench slow [--rate MB] [--storage DIR --image NAME:TAG]

The download alone fetches the same blobs, three at a time, and drops them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools.registry import Registry, get
from bench.tools.setting import arguments, registry_with, services, slow_line


def download(registry: Registry, host: str, image: str) -> float:
    name, layers = image.partition(":")[0], registry.manifest(image)["layers"]
    start = time.monotonic()
    with ThreadPoolExecutor(3) as threads:
        for _ in threads.map(lambda layer: get(host, f"/v2/{name}/blobs/{layer['digest']}"), layers):
            pass
    return time.monotonic() - start


def pull(host: str, image: str) -> float:
    with services(host) as ours:
        start = time.monotonic()
        subprocess.run(ours.pull(image), check=True, env=ours.environ, stdout=subprocess.DEVNULL)
        return time.monotonic() - start


def main() -> None:
    parser = arguments(__doc__ or "", "large:latest")
    parser.add_argument("--rate", type=float, default=30.0, help="MB a second")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    with registry_with(given.storage, given.image) as registry:
        alone, pulled = [], []
        for _ in range(given.repetitions):
            with slow_line(registry.host, given.rate) as host:
                alone.append(download(registry, host, given.image))
            with slow_line(registry.host, given.rate) as host:
                pulled.append(pull(host, given.image))
    one, other = statistics.median(alone), statistics.median(pulled)
    print(f"{given.image} at {given.rate:g} MB/s: download {one:.2f} s, pull {other:.2f} s, ratio {other / one:.3f}")


if __name__ == "__main__":
    main()

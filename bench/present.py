"""A pull of what is there already, by a connected client: the path through the bus and nothing else.

    ./dev bench present [--count N] [--storage DIR --image NAME:TAG]

With one HEAD to a registry on loopback (`always`), without (`if-not-present`), and under a reference that nobody asked for
before (`cold`: a claim and an order for resolving, another for the list of images).
"""

from __future__ import annotations

import asyncio
import http.client
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools.registry import Registry
from bench.tools.setting import arguments, registry_with, services
from pullonce.client import connect
from pullonce.process import discovery


def tag_again(registry: Registry, image: str, tags: list[str]) -> list[str]:
    """The same image under more tags."""
    name, body, content_type = image.partition(":")[0], *registry.document(image)
    connection = http.client.HTTPConnection(registry.host)
    for tag in tags:
        connection.request("PUT", f"/v2/{name}/manifests/{tag}", body, {"Content-Type": content_type})
        connection.getresponse().read()
    return [f"{name}:{tag}" for tag in tags]


async def measure(url: str, host: str, image: str, fresh: list[str], count: int) -> None:
    async with connect(url) as client:
        await client.pull(f"{host}/{image}")
        for name, images, policy in (
            ("always", [image] * count, "always"),
            ("if-not-present", [image] * count, "if-not-present"),
            ("cold", fresh, "always"),
        ):
            took = []
            for each in images:
                start = time.perf_counter()
                await client.pull(f"{host}/{each}", policy=policy)
                took.append((time.perf_counter() - start) * 1e3)
            took.sort()
            print(
                f"{name:16} p50 {took[len(took) // 2]:6.2f} ms   p99 {took[int(len(took) * 0.99)]:6.2f} ms   {len(took)} pulls"
            )


def main() -> None:
    parser = arguments(__doc__ or "", "small:latest")
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args()
    with registry_with(given.storage, given.image) as registry, services(registry.host) as ours:
        fresh = [] if given.storage else tag_again(registry, given.image, [f"cold-{n}" for n in range(100)])
        served = discovery.served(str(ours.home))
        assert served is not None
        asyncio.run(measure(served.url, registry.host, given.image, fresh or [given.image], given.count))


if __name__ == "__main__":
    main()

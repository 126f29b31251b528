"""Three nats-servers as one cluster, whose leaders are killed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import nats

from tests.support.nats_server import NatsServer, free_port

ENOUGH = 60.0


class Cluster:
    """`with Cluster(home) as cluster:`; every server keeps its streams when it is killed.

    Attributes:
        url: of all three, with commas between them.
    """

    def __init__(self, home: Path, size: int = 3) -> None:
        routes = [free_port() for _ in range(size)]
        listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self.servers = {
            f"n{number}": NatsServer(
                home / f"n{number}",
                more=f'server_name: n{number}\ncluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{listed}] }}',
            )
            for number, port in enumerate(routes, 1)
        }
        self.url = ",".join(server.url for server in self.servers.values())

    def __enter__(self) -> Cluster:
        for server in self.servers.values():
            server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        threads = [threading.Thread(target=server.kill) for server in self.servers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async def leader(self, stream: str) -> str:
        """Name of the server that leads a stream, as soon as there is one."""
        return str((await self._until(stream, lambda cluster: bool(cluster.get("leader"))))["leader"])

    async def settled(self, *streams: str) -> None:
        """Return when every server has all of these streams: then any one may die."""

        def whole(cluster: dict[str, Any]) -> bool:
            copies = [copy for copy in cluster.get("replicas", ()) if copy["current"] and not copy.get("offline")]
            return bool(cluster.get("leader")) and len(copies) + 1 == len(self.servers)

        for stream in streams:
            await self._until(stream, whole)

    async def _until(self, stream: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What the cluster says of a stream, as soon as it is what is waited for."""
        async with asyncio.timeout(ENOUGH):
            client = await nats.connect(self.url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1)
            try:
                while True:
                    try:
                        answer = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=1)).data)
                    except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
                        continue
                    cluster: dict[str, Any] = answer.get("cluster", {})
                    if true(cluster):
                        return cluster
                    await asyncio.sleep(0.1)
            finally:
                await client.close()

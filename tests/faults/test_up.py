"""`pullonce up` itself is killed in the middle of a pull, and started again: the request that it had is answered."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import nats

from pullonce.client import connect
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.deployment import Deployment
from tests.support.gate import Gate
from tests.support.registry import RegistryServer

LIMIT = 60


async def test_a_request_outlives_everything_that_runs(registry: RegistryServer, tmp_path: Path) -> None:
    tars = stack(random.Random("up"), 3)
    behind = registry.push("up/killed", "latest", picture(tars))
    pullonce = Deployment(tmp_path / "home", environ={"PULLONCE_ACK_WAIT": "2"}).start()
    with Gate(registry.host) as gate:
        connection = await nats.connect(pullonce.url)
        await connection.request("pull.requested", json.dumps({"reference": gate.reference(behind)}).encode(), timeout=LIMIT)
        await connection.close()
        await until(lambda: bool(growing(pullonce)))
        assert pullonce._process is not None
        pullonce._process.send_signal(signal.SIGKILL)
        pullonce._process.wait()
        gate.open()
        pullonce = await asyncio.to_thread(Deployment(tmp_path / "home", environ={"PULLONCE_ACK_WAIT": "2"}).start)
        try:
            async with connect(pullonce.url, patience=LIMIT) as client:
                await client.pull(gate.reference(behind), timeout=LIMIT)
                verdict = judge(await read_on(client))
        finally:
            await asyncio.to_thread(pullonce.stop)
    assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
    assert damage(pullonce.store, trees(tars)) == []


def growing(pullonce: Deployment) -> list[Path]:
    return list((pullonce.store / "ingest").iterdir())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)

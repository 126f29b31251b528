"""`pullonce up` itself is killed in the middle of pulls, and started again: whoever waits is answered."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pullonce.client import Client, connect
from tests.support.buses import eventually
from tests.support.chaos_check import damage, judge, picture, read_on, stack, trees
from tests.support.deployment import Deployment
from tests.support.gate import Gate
from tests.support.registry import RegistryServer

LIMIT = 60


@pytest.mark.parametrize("taken", [False, True], ids=["at its port", "at another port"])
async def test_pulls_outlive_everything_that_runs(
    registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """Both clients wait for a bus that comes back, at its port where that is free, at another where somebody took it."""
    tars = stack(random.Random(f"up {taken}"), 3)
    behind = registry.push(f"up/killed-{taken}".lower(), "latest", picture(tars))
    pullonce = Deployment(tmp_path / "home", environ={"PULLONCE_ACK_WAIT": "2"}).start()
    monkeypatch.setenv("PULLONCE_HOME", str(pullonce.home))
    monkeypatch.delenv("PULLONCE_NATS_URL", raising=False)
    with Gate(registry.host) as gate:
        async with connect(patience=LIMIT) as client:
            light = pullonce.start_pull("--json", gate.reference(behind))
            waiting = asyncio.create_task(client.pull(gate.reference(behind)))
            before = urlsplit(pullonce.url).port
            await until(lambda: bool(growing(pullonce)))
            await eventually(lambda: both_have_asked(client))
            assert pullonce._process is not None
            pullonce._process.send_signal(signal.SIGKILL)
            pullonce._process.wait()
            with taking(before, really=taken):
                gate.open()
                pullonce = await asyncio.to_thread(Deployment(tmp_path / "home", environ={"PULLONCE_ACK_WAIT": "2"}).start)
                try:
                    assert (urlsplit(pullonce.url).port != before) == taken
                    async with asyncio.timeout(LIMIT):
                        image = await waiting
                    out, err = await asyncio.to_thread(light.communicate, timeout=LIMIT)
                    assert light.returncode == 0, err
                    assert json.loads(out)["image_id"] == image.image_id
                    verdict = judge(await read_on(client))
                finally:
                    await asyncio.to_thread(pullonce.stop)
    assert (verdict.unanswered, verdict.twice, verdict.failed, verdict.counted) == ([], [], [], 2)
    assert damage(pullonce.store, trees(tars)) == []


async def both_have_asked(client: Client) -> bool:
    return [flight.requests for flight in (await client.status()).flights] == [2]


@contextmanager
def taking(port: int | None, *, really: bool) -> Iterator[None]:
    """Listen on a port as soon as what listens there is gone."""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end = time.monotonic() + LIMIT
        while really:
            try:
                squatter.bind(("127.0.0.1", port))
                squatter.listen()
                break
            except OSError:
                assert time.monotonic() < end, "its port is never let go"
                time.sleep(0.02)
        yield


def growing(pullonce: Deployment) -> list[Path]:
    return list((pullonce.store / "ingest").iterdir())


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)

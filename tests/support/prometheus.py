"""A real Prometheus on a free port of the loopback, that scrapes given addresses several times a second."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.nats_server import free_port
from tests.support.programs import die_with_parent

INTERVAL = "500ms"
"""Between two scrapes, and between two evaluations of the rules."""
_READY = 60.0
_PATIENCE = 60.0


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`. Skips (in CI: fails) if there is none."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not on PATH (Debian: apt install prometheus)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    command = [program("promtool"), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=_PATIENCE, check=False)


class Prometheus:
    """What one answers; see `prometheus`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer below `/api/v1`; an error of Prometheus raises AssertionError with its words."""
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            body = await response.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        assert not body.get("warnings"), f"{parameters}: {body['warnings']}"
        return body["data"]

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The samples of an instant vector, or the one of a scalar."""
        data = await self.ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    async def scraped(self, times: int = 2) -> None:
        """Return once every address was scraped that many times more, and answered."""
        before = await self._scrapes()
        async with asyncio.timeout(_PATIENCE):
            while True:
                now = await self._scrapes()
                if now and all(count >= before.get(instance, 0.0) + times for instance, count in now.items()):
                    return
                await asyncio.sleep(0.2)

    async def _scrapes(self) -> dict[str, float]:
        """Successful scrapes so far by address."""
        return {labels["instance"]: value for labels, value in await self.query("sum_over_time(up[1h])")}


@asynccontextmanager
async def prometheus(home: Path, targets: Mapping[str, str], rules: Path) -> AsyncIterator[Prometheus]:
    """A Prometheus for the length of the block.

    Args:
        home: for its configuration and its data.
        targets: instance → the address of its metrics, `host:port`.
        rules: file of rules to evaluate.
    """
    home.mkdir(parents=True)
    (home / "prometheus.yml").write_text(json.dumps(_configuration(targets, rules)))
    address = f"127.0.0.1:{free_port()}"
    url, process = f"http://{address}", _start(home, address)
    try:
        async with aiohttp.ClientSession() as session:
            await _ready(session, url, process)
            yield Prometheus(session, url)
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _start(home: Path, address: str) -> subprocess.Popen[bytes]:
    with (home / "log").open("w") as said:
        return subprocess.Popen(
            [
                program("prometheus"), f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address={address}", "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, preexec_fn=die_with_parent,
        )  # fmt: skip


def _configuration(targets: Mapping[str, str], rules: Path) -> dict[str, Any]:
    """JSON is YAML."""
    found = [{"targets": [address], "labels": {"instance": instance}} for instance, address in targets.items()]
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "pullonce", "static_configs": found}],
    }


async def _ready(session: aiohttp.ClientSession, url: str, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(_READY):
        while True:
            assert process.poll() is None, "prometheus ended at once"
            try:
                async with session.get(f"{url}/-/ready") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)

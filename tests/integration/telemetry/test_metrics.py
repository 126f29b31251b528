"""Metrics and health of every part, as Prometheus and whoever restarts processes see them; the dashboard knows their names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pullonce.client import connect
from pullonce.errors import PullFailed
from tests.integration.ledger.test_service import service
from tests.support.buses import LIMIT, NatsPlace, eventually
from tests.support.deployment import Deployment, taken_in
from tests.support.images import image, layer, tar_of
from tests.support.nats_server import NatsServer, free_port
from tests.support.registry import RegistryServer

ROOT = Path(__file__).parents[3]
PARTS = ("coordinator", "fetcher", "unpacker", "ledger")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def pullonce(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "home", ledger=True, environ={"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}).start()
    yield deployment
    deployment.stop()


async def addresses(pullonce: Deployment) -> dict[str, str]:
    """Where each part shows its metrics."""
    found: dict[str, str] = {}
    async with connect(pullonce.url) as client:

        async def all_there() -> bool:
            found.update({pong.service: str(pong.details["metrics"]) for pong in await client.ping(0.5)})
            return set(found) == set(PARTS)

        await eventually(all_there)
    return found


async def scrape(session: aiohttp.ClientSession, url: str) -> Samples:
    async with session.get(url) as response:
        assert response.status == 200 and response.headers["Content-Type"].startswith("text/plain; version=")
        text = await response.text()
    families = list(text_string_to_metric_families(text))
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of that name with these labels, of whatever else."""
    return sum(each for (known, given), each in samples.items() if known == name and labels.items() <= dict(given).items())


async def test_every_part_counts_what_a_pull_cost(registry: RegistryServer, pullonce: Deployment) -> None:
    layers = [layer(tar_of({f"file-{each}": b"x" * 5000})) for each in range(3)]
    reference = registry.push("metered/app", "latest", image(layers))
    async with connect(pullonce.url) as client:
        await client.pull(reference, timeout=LIMIT)
        await client.pull(reference, timeout=LIMIT)
        with pytest.raises(PullFailed):
            await client.pull(f"{registry.host}/metered/nothing:1", timeout=LIMIT)
        await taken_in(client, flights=3)
    where = await addresses(pullonce)
    async with aiohttp.ClientSession() as session:

        async def counted() -> bool:
            return value(await scrape(session, where["ledger"]), "pullonce_flights_total") == 3

        await eventually(counted)
        fetcher, unpacker, coordinator, ledger = [
            await scrape(session, where[each]) for each in ("fetcher", "unpacker", "coordinator", "ledger")
        ]
    fetched = sum(len(each.blob) for each in layers)
    assert value(fetcher, "pullonce_fetched_bytes_total", registry=registry.host) == fetched
    assert value(fetcher, "pullonce_blobs_total", outcome="fetched") == 3
    assert value(fetcher, "pullonce_orders_total", kind="fetch.blob", outcome="done") == 3
    assert value(fetcher, "pullonce_failures_total", kind="resolve.reference") == 1
    assert value(fetcher, "pullonce_step_duration_seconds_count", kind="fetch.blob", step="verify") == 3
    assert value(fetcher, "pullonce_orders_in_progress") == 0
    assert value(unpacker, "pullonce_layers_total", outcome="unpacked") == 3
    assert value(unpacker, "pullonce_unpacked_bytes_total") == 15000
    assert value(coordinator, "pullonce_flights_in_air") == value(coordinator, "pullonce_requests_in_air") == 0
    assert value(coordinator, "pullonce_orders_sent_total", kind="fetch.blob", outcome="queued") == 3
    assert value(coordinator, "pullonce_claims_total", noun="blob", outcome="won") >= 3
    assert value(coordinator, "pullonce_events_appended_total", type="pull.completed") == 2
    assert value(ledger, "pullonce_requests_total", outcome="completed") == 2
    assert value(ledger, "pullonce_door_requests_total", door="client") == 3
    assert value(ledger, "pullonce_flights_total", outcome="failed") == 1
    assert value(ledger, "pullonce_flight_duration_seconds_count", outcome="completed") == 2
    assert value(ledger, "pullonce_flight_bytes_total", source="fetched") == fetched
    assert value(ledger, "pullonce_saved_bytes_total") == fetched
    every = {"fetcher": fetcher, "unpacker": unpacker, "coordinator": coordinator, "ledger": ledger}
    for name, samples in every.items():
        assert value(samples, "pullonce_build_info", service=name) == 1
        assert value(samples, "process_resident_memory_bytes") > 0

    known = {name for samples in every.values() for name, _ in samples}
    told = dashboard()
    assert told and told <= known, f"the dashboard asks for what nobody measures: {sorted(told - known)}"
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known if name.startswith("pullonce_")}
    shown = {re.sub(r"_(bucket|count)$", "", name) for name in told}
    assert ours - shown <= {"pullonce_keys_known", "pullonce_ledger_folds", "pullonce_ledger_position"}


def dashboard() -> set[str]:
    """All names of metrics in the expressions of the dashboard."""
    panels = json.loads((ROOT / "deploy/grafana/dashboards/pullonce.json").read_text())["panels"]
    expressions = " ".join(target["expr"] for panel in panels for target in panel.get("targets", ()))
    return set(re.findall(r"\b(?:pullonce|process)_\w+", expressions))


async def test_health_and_readiness(pullonce: Deployment) -> None:
    async with aiohttp.ClientSession() as session:
        for address in (await addresses(pullonce)).values():
            base = address.removesuffix("/metrics")
            for path, status in {"/healthz": 200, "/readyz": 200, "/metrics?x=1": 200, "/": 404, "/../etc/passwd": 404}.items():
                async with session.get(base + path) as response:
                    assert response.status == status, (address, path)
            async with session.post(base + "/metrics") as response:
                assert response.status == 405


async def test_who_has_no_bus_is_healthy_and_not_ready(nats_server: NatsServer, tmp_path: Path) -> None:
    nats_server.kill()
    address = f"127.0.0.1:{free_port()}"
    async with (
        service(tmp_path / "home", nats_server.url, PULLONCE_METRICS_ADDRESS=address),
        aiohttp.ClientSession() as session,
    ):

        async def status(path: str) -> int:
            try:
                async with session.get(f"http://{address}{path}") as response:
                    return response.status
            except aiohttp.ClientConnectionError:
                return 0

        async def healthy() -> bool:
            return await status("/healthz") == 200

        async def ready() -> bool:
            return await status("/readyz") == 200

        await eventually(healthy)
        assert await status("/readyz") == 503
        nats_server.start()
        await eventually(ready)
        async with NatsPlace(nats_server.url).connect():
            assert await healthy()


async def test_an_address_that_cannot_be_used_is_said(nats_server: NatsServer, tmp_path: Path) -> None:
    for wrong in ("nothing", nats_server.url.removeprefix("nats://")):
        async with service(tmp_path / "home", nats_server.url, PULLONCE_METRICS_ADDRESS=wrong) as refused:
            assert await refused.ended() == 1

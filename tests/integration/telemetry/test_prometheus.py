"""The dashboard and the alerts in a real Prometheus, over what a real deployment measures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from pullonce.client import Client, connect
from pullonce.errors import PullFailed
from tests.integration.telemetry.test_metrics import PARTS, ROOT, addresses
from tests.support.buses import LIMIT
from tests.support.deployment import Deployment, taken_in
from tests.support.images import image, layer, tar_of
from tests.support.prometheus import Prometheus, prometheus, promtool
from tests.support.registry import RegistryServer

RULES = ROOT / "deploy/prometheus-rules.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/pullonce.json"
_SELECTOR = re.compile(r"\b(?:pullonce|process)_\w+|\bup\b")


@pytest.fixture(scope="module")
def pullonce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("home")
    deployment = Deployment(home, ledger=True, environ={"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}).start()
    yield deployment
    deployment.stop()


def expressions() -> list[str]:
    """All expressions of the dashboard, as Grafana sends them."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [each.replace("$__rate_interval", "1m") for each in found]


async def pull_a_round(client: Client, registry: RegistryServer, number: int) -> None:
    """One new image, once more, and one that does not exist."""
    layers = [layer(tar_of({f"file-{number}-{each}": bytes([number, each]) * 5000})) for each in range(3)]
    reference = registry.push(f"charted/app-{number}", "latest", image(layers))
    await client.pull(reference, timeout=LIMIT)
    await client.pull(reference, timeout=LIMIT)
    with pytest.raises(PullFailed):
        await client.pull(f"{registry.host}/charted/nothing:{number}", timeout=LIMIT)
    await taken_in(client, flights=3 * number)


async def test_every_expression_has_an_answer(registry: RegistryServer, pullonce: Deployment, tmp_path: Path) -> None:
    targets = {part: url.split("/")[2] for part, url in (await addresses(pullonce)).items()}
    async with prometheus(tmp_path / "prometheus", targets, RULES) as watched, connect(pullonce.url) as client:
        await watched.scraped()
        for number in (1, 2):  # what begins with the first round has increased after the second
            await pull_a_round(client, registry, number)
            await watched.scraped()
        for expression in expressions():
            found = await watched.query(expression)
            assert found, f"nothing is charted by {expression}"
            assert any(math.isfinite(value) for _, value in found), f"only NaN is charted by {expression}"
        await check_figures(watched)
        await check_rules(watched)


async def check_figures(watched: Prometheus) -> None:
    """A chart with numbers may still be wrong: some of which we know the answer."""
    assert await watched.query("max(pullonce_flights_in_air)") == [({}, 0.0)]
    assert await watched.query("count(pullonce_build_info)") == [({}, float(len(PARTS)))]
    failed = 'sum(increase(pullonce_flight_duration_seconds_count{outcome="failed"}[1h]))'
    ((_, count),) = await watched.query(failed)
    assert count > 1.5  # both: the first one too, since the count began at nothing. Increases are extrapolated.
    behind = "scalar(max(pullonce_log_position)) - pullonce_log_position"
    assert [(labels["instance"], value) for labels, value in await watched.query(behind)] == [("coordinator", 0.0)]


async def check_rules(watched: Prometheus) -> None:
    """Every alert is evaluated without an error, and what it looks at is there."""
    (group,) = (await watched.ask("rules"))["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert [rule["name"] for rule in group["rules"] if rule["state"] != "inactive"] == []
    for rule in group["rules"]:
        await watched.query(rule["query"])
        for name in _SELECTOR.findall(rule["query"]):
            assert await watched.query(name), f"{rule['name']} looks at {name}, which nobody measures"


async def test_what_the_parts_show_passes_the_linter(pullonce: Deployment) -> None:
    async with aiohttp.ClientSession() as session:
        for part, url in (await addresses(pullonce)).items():
            async with session.get(url) as response:
                checked = promtool("check", "metrics", given=await response.text())
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", ""), part


def test_the_rules_are_rules_and_mean_what_they_say() -> None:
    checked = promtool("check", "config", str(ROOT / "deploy/prometheus.yml"))
    assert checked.returncode == 0, checked.stderr
    names = re.findall(r"- alert: (\w+)", RULES.read_text())
    told = (ROOT / "tests/integration/telemetry/prometheus-rules.test.yml").read_text()
    assert all(told.count(f"alertname: {name}") == 2 for name in names)  # one that fires, one that does not
    checked = promtool("test", "rules", str(ROOT / "tests/integration/telemetry/prometheus-rules.test.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr

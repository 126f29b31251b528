"""Spans of real services at a real collector: one pull is one trace, and who joins it is linked to it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pullonce.client import Client, connect
from pullonce.errors import PullFailed
from pullonce.telemetry.spanning import wanted
from pullonce.trace import carried
from tests.support.buses import LIMIT, eventually
from tests.support.deployment import Deployment
from tests.support.gate import Gate
from tests.support.images import image, layer, tar_of
from tests.support.nats_server import free_port
from tests.support.otlp import Collector, Got, collector
from tests.support.registry import RegistryServer

LAYERS = [layer(tar_of({f"file-{each}": bytes([each]) * 5000})) for each in range(3)]


@asynccontextmanager
async def traced(home: Path, **environ: str) -> AsyncIterator[tuple[Client, Collector]]:
    """A deployment with three coordinators whose spans arrive here."""
    async with collector() as collecting:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collecting.url, "OTEL_BSP_SCHEDULE_DELAY": "200", **environ}
        deployment = Deployment(home, environ=settings, coordinators=3)
        await asyncio.to_thread(deployment.start)
        try:
            async with connect(deployment.url) as client:
                yield client, collecting
        finally:
            await asyncio.to_thread(deployment.stop)


def asked_by(number: int) -> str:
    """The trace and span of one who asks."""
    return f"00-{number:032x}-{number:016x}-01"


def below(spans: list[Got], parent: Got) -> list[Got]:
    """The spans below one, in the order in which they began."""
    return sorted((each for each in spans if (each.trace, each.parent) == (parent.trace, parent.id)), key=lambda it: it.begin)


async def test_a_pull_is_one_trace(registry: RegistryServer, tmp_path: Path) -> None:
    reference = registry.push("spans/app", "1", image(LAYERS))
    async with traced(tmp_path / "home", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test") as (client, got):
        with carried(asked_by(7)):
            pulled = await client.pull(reference, timeout=LIMIT)
    (pull,) = got.named("pull")  # of three coordinators one tells it
    assert (pull.trace, pull.parent, pull.links) == (f"{7:032x}", f"{7:016x}", ())
    assert {each.trace for each in got.spans} == {pull.trace}
    orders = below(got.spans, pull)
    assert Counter(each.name for each in orders) == {
        "resolve.reference": 1, "fetch.blob": 3, "unpack.layer": 3, "record.image": 1,
    }  # fmt: skip
    assert {each.kind for each in orders} == {"SPAN_KIND_CONSUMER"}
    assert [orders[0].name, orders[-1].name] == ["resolve.reference", "record.image"]
    steps = {each.name: [step.name for step in below(got.spans, each)] for each in orders}
    assert {"transfer", "verify"} <= set(steps["fetch.blob"]) and {"unpack", "commit"} <= set(steps["unpack.layer"])
    assert len(got.spans) == 1 + len(orders) + sum(len(below(got.spans, each)) for each in orders)
    for parent in (pull, *orders):
        for child in below(got.spans, parent):
            assert parent.begin - 0.05 <= child.begin <= child.end <= parent.end + 0.05, (parent, child)
    assert not any(each.failed for each in got.spans)
    check_names(pull, orders, reference, registry, pulled.manifest)


def check_names(pull: Got, orders: list[Got], reference: str, registry: RegistryServer, manifest: str) -> None:
    """Attributes and resources, by the names of the semantic conventions where there are any."""
    about = pull.attributes
    assert (about["container.image.name"], about["container.image.tags"]) == (reference.rpartition(":")[0], ["1"])
    assert (about["oci.manifest.digest"], about["pullonce.requests"]) == (manifest, 1)
    assert about["pullonce.fetched_bytes"] == sum(len(each.blob) for each in LAYERS)
    fetches = [each.attributes for each in orders if each.name == "fetch.blob"]
    assert {each["server.address"] for each in fetches} == {registry.host}
    assert {each["pullonce.digest"] for each in fetches} == {each.digest for each in LAYERS}
    assert {each["messaging.system"] for each in fetches} == {"nats"}
    named = {each.name: each.resource["service.name"] for each in (pull, *orders)}
    assert named == {
        "pull": "pullonce-coordinator", "resolve.reference": "pullonce-fetcher", "fetch.blob": "pullonce-fetcher",
        "record.image": "pullonce-fetcher", "unpack.layer": "pullonce-unpacker",
    }  # fmt: skip
    assert {each.resource["deployment.environment.name"] for each in (pull, *orders)} == {"test"}


async def test_twenty_requests_share_the_spans_of_one_flight(registry: RegistryServer, tmp_path: Path) -> None:
    reference = registry.push("spans/shared", "1", image(LAYERS))
    async with traced(tmp_path / "home") as (client, got):
        with Gate(registry.host) as gate:
            asking: list[asyncio.Task[object]] = []
            for number in range(1, 21):
                with carried(asked_by(number)):
                    asking.append(asyncio.create_task(client.pull(gate.reference(reference), timeout=LIMIT)))

            async def all_asked() -> bool:
                flights = (await client.status()).flights
                return [flight.requests for flight in flights] == [20]

            await eventually(all_asked)
            gate.open()
            await asyncio.gather(*asking)
    (pull,) = got.named("pull")
    joined = got.named("pull joined")
    opener = int(pull.trace, 16)
    assert pull.parent == f"{opener:016x}" and pull.attributes["pullonce.requests"] == 20
    others = {number for number in range(1, 21) if number != opener}
    assert {(int(each.trace, 16), int(each.parent, 16)) for each in joined} == {(number, number) for number in others}
    assert {each.links for each in joined} == {((pull.trace, pull.id),)} and len(joined) == 19
    assert set(pull.links) == {(f"{number:032x}", f"{number:016x}") for number in others}
    assert {each.trace for each in got.spans if each not in joined} == {pull.trace}
    assert Counter(each.name for each in below(got.spans, pull)).keys() == {
        "resolve.reference", "fetch.blob", "unpack.layer", "record.image",
    }  # fmt: skip


async def test_a_pull_without_a_trace_begins_one_and_a_failure_is_said(registry: RegistryServer, tmp_path: Path) -> None:
    async with traced(tmp_path / "home", OTEL_SERVICE_NAME="images") as (client, got):
        with pytest.raises(PullFailed):
            await client.pull(f"{registry.host}/spans/nothing:1", timeout=LIMIT)
        with carried(asked_by(9)[:-1] + "0"), pytest.raises(PullFailed):  # its requester does not sample it
            await client.pull(f"{registry.host}/spans/nothing:2", timeout=LIMIT)
    (pull,) = got.named("pull")
    (resolve,) = got.named("resolve.reference")
    assert (pull.parent, resolve.parent, resolve.trace) == ("", pull.id, pull.trace)
    for each in (pull, resolve):
        assert each.failed and each.attributes["error.type"] == "MANIFEST_UNKNOWN" and each.message
        assert each.resource["service.name"] == "images"


async def test_a_collector_that_is_away_holds_nothing_up(registry: RegistryServer, tmp_path: Path) -> None:
    reference = registry.push("spans/app", "1", image(LAYERS))
    nobody = f"http://127.0.0.1:{free_port()}"
    deployment = Deployment(tmp_path / "home", environ={"OTEL_EXPORTER_OTLP_ENDPOINT": nobody})
    await asyncio.to_thread(deployment.start)
    try:
        async with connect(deployment.url) as client:
            assert (await client.pull(reference, timeout=LIMIT)).size
    finally:
        await asyncio.wait_for(asyncio.to_thread(deployment.stop), LIMIT)


def test_nothing_is_imported_where_nobody_asks_for_spans() -> None:
    services = "services.coordinator.__main__, services.fetcher.__main__, services.unpacker.__main__, pullonce.cli.main"
    code = f"import sys, {services}; print([each for each in sys.modules if each.startswith('opentelemetry')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        ({}, False), ({"OTEL_SERVICE_NAME": "x"}, False), ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)  # fmt: skip
def test_the_usual_variables_decide(environ: dict[str, str], asked: bool) -> None:
    assert wanted(environ) is asked

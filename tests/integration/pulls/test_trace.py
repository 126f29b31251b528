"""A requester's trace through all parts: every message that its pull brings about carries it, and their logs name it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats

from pullonce.bus.ports import Recorded
from pullonce.client import connect
from pullonce.trace import HEADER, carried
from tests.contract.test_trace import TRACE
from tests.support.buses import LIMIT
from tests.support.deployment import Deployment
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer

OTHER = TRACE.replace("4bf9", "1111")


async def traces(url: str) -> dict[str, list[str]]:
    """The traces of all events, by type."""
    found: dict[str, list[str]] = {}
    connection = await nats.connect(url)
    stream = connection.jetstream()
    last = (await stream.stream_info("EVENTS")).state.last_seq
    for sequence in range(1, last + 1):
        message = await stream.get_msg("EVENTS", sequence)
        kind = ".".join(str(message.subject).split(".")[:2])
        found.setdefault(kind, []).append((message.headers or {}).get(HEADER, ""))
    await connection.close()
    return found


async def test_a_trace_goes_through_all_parts(registry: RegistryServer, tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "home").start()
    try:
        first = registry.push("traced/one", "latest", image([layer(tar_of({"one": b"1" * 1000}))]))
        second = registry.push("traced/two", "latest", image([layer(tar_of({"two": b"2" * 1000}))]))
        deployment.environ["TRACEPARENT"] = TRACE
        assert (await asyncio.to_thread(deployment.run, "pull", first)).returncode == 0
        del deployment.environ["TRACEPARENT"]
        followed: list[Recorded] = []
        async with connect(deployment.url) as client:
            with carried(OTHER):
                await client.pull(second, timeout=LIMIT)
            await client.pull(first, timeout=LIMIT)
            last = await client.last_sequence()
            done = asyncio.Event()

            def take(recorded: Recorded) -> None:
                followed.append(recorded)
                if recorded.sequence >= last:
                    done.set()

            watching = asyncio.create_task(client.watch(take))
            await asyncio.wait_for(done.wait(), LIMIT)
            watching.cancel()
        stored = await traces(deployment.url)
    finally:
        deployment.stop()
    for kind in ("blob.claimed", "blob.fetched", "layer.claimed", "layer.unpacked"):
        assert stored[kind] == [TRACE, OTHER], kind
    for kind in ("pull.requested", "pull.resolved", "pull.completed"):
        assert stored[kind] == [TRACE, OTHER, ""], kind
    assert {each.trace for each in followed} == {TRACE, OTHER, ""}
    lines = [json.loads(line) for line in deployment.output if line.startswith("{")]
    named = {line["service"] for line in lines if line.get("trace_id") == TRACE.split("-")[1]}
    assert named == {"coordinator", "fetcher", "unpacker"}

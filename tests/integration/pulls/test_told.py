"""What real services tell while they pull: log lines that name what they speak of, and progress at a bounded rate."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from pullonce.client import connect
from pullonce.errors import PullFailed
from pullonce.pulling.identity import identify
from schemas.progress import BlobProgress, decode, name_of
from schemas.pull_facts import Ended
from tests.support.buses import LIMIT, NatsPlace, eventually
from tests.support.chaos_line import Line
from tests.support.deployment import Deployment
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer

WORDS = 10
"""A second, about one piece of work."""
LANDMARKS = 8
"""Words besides: that it waits, begins, has its first and its last bytes, is verified or committed."""


@pytest.fixture(scope="module")
def pullonce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("told") / "home").start()
    yield deployment
    deployment.stop()


def noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


async def test_log_lines_name_flight_digest_and_sequence(registry: RegistryServer, pullonce: Deployment) -> None:
    made = layer(tar_of({"f": noise("logs", 1000)}))
    reference = registry.push("told/app", "1", image([made]))
    missing = reference.replace(":1", ":2")
    async with connect(pullonce.url) as client:
        pulled = await client.pull(reference, timeout=LIMIT)
        with pytest.raises(PullFailed):
            await client.pull(missing, timeout=LIMIT)
    endings = {each.flight: each for each in await pullonce.events() if isinstance(each, Ended)}

    def said(message: str, **fields: object) -> list[dict[str, object]]:
        """The lines so far with that message and these fields."""
        lines = [json.loads(line) for line in list(pullonce.output) if line.startswith("{")]
        return [line for line in lines if line["message"].startswith(message) and fields.items() <= line.items()]

    flight, lost = identify(reference).flight, identify(missing).flight

    async def all_said() -> bool:
        return bool(
            said("resolved", service="fetcher", flight=flight, digest=pulled.digest)
            and said("fetched", service="fetcher", digest=made.digest)
            and said("layer unpacked", service="unpacker", digest=made.digest, chain_id=pulled.chain_id)
            and said("listed", service="fetcher", flight=flight, digest=pulled.digest)
            and said("gave up", service="fetcher", flight=lost, order="resolve.reference", attempt=1)
            and said("pull.completed", service="coordinator", flight=flight, covers=endings[flight].covers)
            and said("pull.failed", service="coordinator", flight=lost, covers=endings[lost].covers)
        )

    await eventually(all_said)
    # The sequence is where the ending lies in the log: the next event after what it covers, as nobody else asked.
    for name, message in ((flight, "pull.completed"), (lost, "pull.failed")):
        assert {line["sequence"] for line in said(message, flight=name)} == {endings[name].covers}


async def test_progress_is_told_at_a_bounded_rate(registry: RegistryServer, pullonce: Deployment) -> None:
    made = layer(tar_of({"f": noise("progress", 2_500_000)}))
    behind = registry.push("told/slowly", "1", image([made]))
    heard: dict[str, list[float]] = defaultdict(list)
    over: set[str] = set()

    def hear(_: str, body: bytes) -> None:
        word = decode(body)
        name = word.digest if isinstance(word, BlobProgress) else f"layer {name_of(word)}"
        heard[name].append(asyncio.get_running_loop().time())
        if word.state in ("verified", "committed"):
            over.add(name)

    expected = {made.digest, f"layer {made.diff_id}"}
    async with NatsPlace(pullonce.url).connect() as bus, connect(pullonce.url) as client:
        await bus.signals.subscribe("progress.default.>", hear)
        with Line(registry.host, 1.5e6) as line:
            await client.pull(line.reference(behind), timeout=LIMIT)

        async def heard_to_the_end() -> bool:
            return expected <= over

        await eventually(heard_to_the_end)
    for name in expected:
        # In all that time, not in each second of it: what was said at a steady pace may be heard in bursts.
        took = heard[name][-1] - heard[name][0]
        assert took > 1.0 and 3 <= len(heard[name]) <= WORDS * took + LANDMARKS, name

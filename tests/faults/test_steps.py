"""Death at each named step of the protocol: whoever takes over ends the pull, once, and does nothing twice that was done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from pullonce.client import connect
from pullonce.failpoints import STEPS
from pullonce.store.content import ContentStore
from schemas.oci import Digest
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_check import Verdict, damage, judge, picture, read_on, stack, trees
from tests.support.chaos_line import Line
from tests.support.images import image, layer, tar_of
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 60
WAITERS = 3
ALONE = {"coordinator": 1, "fetcher": 1, "unpacker": 1}
IN_COMPANY = {"coordinator": 3, "fetcher": 2, "unpacker": 2}


@pytest.fixture(scope="module", params=[ALONE, IN_COMPANY], ids=["alone", "in company"])
def crew(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("home") / "here", bus_server.url, **request.param) as running:
        yield running


@pytest.mark.parametrize("step", STEPS)
async def test_a_pull_survives_a_death_at(crew: Crew, registry: RegistryServer, step: str) -> None:
    tars = stack(random.Random(f"{step} {id(crew)}"), 3)
    behind = registry.push(f"steps/{step.replace('.', '-')}", "latest", picture(tars))
    with Line(registry.host, rate=1_000_000) as line:
        crew.arm(step)
        verdict = await pulled(crew, line.reference(behind))
    assert not crew.is_armed(step), "nobody came by"
    assert (verdict.requests, verdict.counted) == (WAITERS, WAITERS)
    assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
    assert verdict.extra == 0
    assert damage(crew.store, trees(tars)) == []
    assert crew.unforeseen() == []
    gets = [each.path for each in registry.requests() if each.kind == "GET blobs" and each.status == 200]
    assert len(gets) == len(set(gets)), "what was verified is not fetched again"


async def pulled(crew: Crew, reference: str) -> Verdict:
    """Ask some times at once, wait for all, and read what the log says of it."""
    async with connect(crew.url, patience=LIMIT) as client:
        start = await client.last_sequence() + 1
        await asyncio.gather(*(client.pull(reference, timeout=LIMIT) for _ in range(WAITERS)))
        return judge(await read_on(client, start))


async def test_after_a_kill_in_mid_blob_at_most_one_chunk_comes_again(crew: Crew, registry: RegistryServer) -> None:
    chunk = 1 << 20
    blob = layer(tar_of({"noise": random.Random(f"{id(crew)}").randbytes(8 * chunk)}), "plain")
    behind = registry.push("mid/blob", "latest", image([blob]))
    growing = ContentStore(crew.store).ingest_path(Digest(blob.digest))

    async def has_grown() -> bool:
        return growing.exists() and growing.stat().st_size > 4 * chunk

    with Line(registry.host, rate=6_000_000) as line:
        async with connect(crew.url, patience=LIMIT) as client:
            pull = asyncio.ensure_future(client.pull(line.reference(behind), timeout=LIMIT))
            await eventually(has_grown)
            for member in crew.named("fetcher"):
                member.kill()
            kept = growing.stat().st_size
            await pull
        again = line.brought - len(blob.blob)
    print(f"{kept} of {len(blob.blob)} bytes were there; {again} more were brought than it has")
    assert kept > 4 * chunk
    assert again <= chunk + chunk // 2, "one chunk, and what is in the kernel's buffers and in headers"
    assert damage(crew.store, {}) == []

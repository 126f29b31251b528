"""Messages that nobody should have sent: forged, replayed from another deployment, oversized; and who may send what."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from pullonce.bus.ports import Recorded
from pullonce.client import connect
from pullonce.errors import PullFailed
from pullonce.pulling.identity import identify_request
from schemas import events, routing, subjects
from schemas.events import BlobClaimed, BlobFetched, Event, LayerUnpacked, PullCancelled, PullRequested, StoreOpened
from schemas.oci import ChainID, DiffID, Digest
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, judge, picture, read_log, read_on, stack, trees
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 60
EACH = {"coordinator": 1, "fetcher": 1, "unpacker": 1}


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    with Crew(tmp_path_factory.mktemp("home") / "here", bus_server.url, **EACH) as running:
        yield running
        assert running.unforeseen() == []


@asynccontextmanager
async def anybody(url: str) -> AsyncIterator[Any]:
    """A NATS client that knows nothing of pullonce."""
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


async def forge(url: str, *events: Event) -> None:
    """Store events as their rightful senders would."""
    async with anybody(url) as client:
        for event in events:
            await client.request(routing.event_subject(event), msgspec.json.encode(event), timeout=LIMIT)


# -- forged ----------------------------------------------------------------------------------------------------------------


async def test_facts_that_are_not_true_delay_nobody(crew: Crew, registry: RegistryServer) -> None:
    """The log says that all is there. The disk decides: the pull asks it first."""
    tars = stack(random.Random("forged"), 2)
    made = picture(tars)
    reference = registry.push("forged/facts", "latest", made)
    lies: list[Event] = [BlobFetched(digest=Digest(each), size=1, revision=10**9) for each in made.layers]
    lies += [LayerUnpacked(chain_id=ChainID(name), diff_id=DiffID(name), revision=10**9) for name in trees(tars)]
    await forge(crew.url, *lies)
    async with connect(crew.url, patience=LIMIT) as client:
        await client.pull(reference, timeout=LIMIT)
    assert damage(crew.store, trees(tars)) == []


async def test_cancellations_of_what_others_asked_for_count_once(crew: Crew, registry: RegistryServer) -> None:
    """Whoever may cancel may cancel any request; but none twice, and none that is not there."""
    tars = stack(random.Random("cancelled"), 2)
    reference = registry.push("forged/cancelled", "latest", picture(tars))
    identity = identify_request(PullRequested(reference=reference))
    lie = PullCancelled(reference=identity.reference, flight=identity.flight, request=10**9)
    async with connect(crew.url, patience=LIMIT) as client:
        pull = asyncio.ensure_future(client.pull(reference, timeout=LIMIT))
        await forge(crew.url, lie, lie)
        await pull


async def test_another_incarnation_only_costs_a_look(crew: Crew, registry: RegistryServer) -> None:
    tars = stack(random.Random("incarnation"), 2)
    reference = registry.push("forged/incarnation", "latest", picture(tars))
    async with connect(crew.url, patience=LIMIT) as client:
        await client.pull(reference, timeout=LIMIT)
        await forge(crew.url, StoreOpened(incarnation="another"))
        again = await client.pull(reference, timeout=LIMIT)
    assert again.sharing.fetched == 0, "the disk still has it"


# -- oversized, malformed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10_000, 900_000])
async def test_an_absurd_request_is_put_aside_and_stops_nobody(crew: Crew, registry: RegistryServer, size: int) -> None:
    async with anybody(crew.url) as client, connect(crew.url, patience=LIMIT) as good:
        start = await good.last_sequence() + 1
        for body in (
            {"reference": "x" * size},
            {"reference": "redis", "platform": "y" * size},
            {"reference": "redis", "store": "z" * size},
            {"reference": "redis", "credential": "c" * size},
            {"reference": "redis", "requester": "r" * size, "policy": "never"},
        ):
            await client.request("pull.requested", json.dumps(body).encode(), timeout=LIMIT)
        tars = stack(random.Random(size), 1)
        await good.pull(registry.push("after/absurd", f"s{size}", picture(tars)), timeout=LIMIT)
        told = await read_on(good, start)
    assert crew.unforeseen() == []
    assert [each.sequence for each in told if isinstance(each.event, events.PullFailed)] == []
    assert all(each.subject == "pull.requested" and each.malformed for each in told[:-1] if each.event is None)


async def test_an_order_that_nobody_gave_for_a_place_that_does_not_exist(crew: Crew, registry: RegistryServer) -> None:
    async with anybody(crew.url) as client:
        for subject, body in (
            ("fetch.blob.default.sha256-0.1", b"{}"),
            ("unpack.layer.default.x.1", b"\xff\xfe"),
            ("resolve.reference.default.x.1", b'{"reference": 7}'),
        ):
            await client.request(subject, body, timeout=LIMIT)
    async with connect(crew.url, patience=LIMIT) as good:
        await good.pull(registry.push("after/orders", "latest", picture(stack(random.Random(3), 1))), timeout=LIMIT)


# -- another log -------------------------------------------------------------------------------------------------------------


async def test_a_log_of_another_deployment_is_history_and_no_more(registry: RegistryServer, tmp_path: Path) -> None:
    """Everything one deployment has said, played into the log of a new one whose store is empty."""
    stacks = [stack(random.Random(f"replay {n}"), 2) for n in range(3)]
    names = [registry.push("replayed", f"v{n}", picture(each)) for n, each in enumerate(stacks)]
    first, second = NatsServer(tmp_path / "n1").start(), NatsServer(tmp_path / "n2").start()
    try:
        with Crew(tmp_path / "one", first.url, **EACH) as crew:
            async with connect(crew.url, patience=LIMIT) as client:
                for name in names:
                    await client.pull(name, timeout=LIMIT)
            history = await read_log(first.url)
        with Crew(tmp_path / "two", second.url, **EACH) as crew:
            await replay(second.url, history)
            async with connect(crew.url, patience=LIMIT) as client:
                start = await client.last_sequence() + 1
                await asyncio.gather(*(client.pull(name, timeout=LIMIT) for name in names))
                verdict = judge(await read_on(client, start))
            assert (verdict.unanswered, verdict.twice, verdict.failed) == ([], [], [])
            assert damage(crew.store, {name: tar for each in stacks for name, tar in trees(each).items()}) == []
    finally:
        first.kill()
        second.kill()


async def replay(url: str, history: list[Recorded]) -> None:
    async with anybody(url) as client:
        for each in history:
            assert each.event is not None
            await client.request(each.subject, msgspec.json.encode(each.event), timeout=LIMIT)


async def test_a_lost_bucket_of_claims_hangs_nobody(registry: RegistryServer, tmp_path: Path) -> None:
    """The log stays and the claims are gone: what fails afterwards must count, though its number is a new one."""
    tars = stack(random.Random("bucket"), 2)
    made = picture(tars)
    reference = registry.push("lost/bucket", "latest", made)
    server = NatsServer(tmp_path / "nats").start()
    try:
        with Crew(tmp_path / "home", server.url, **EACH) as crew:
            async with connect(server.url, patience=LIMIT) as client:
                await client.pull(reference, timeout=LIMIT)
            await forge(server.url, *(BlobClaimed(digest=Digest(d), revision=500, holder="x") for d in made.layers))
            await forge(server.url, *(BlobFetched(digest=Digest(d), revision=500, size=1) for d in made.layers))
        async with anybody(server.url) as client:
            await client.jetstream().delete_stream(f"KV_{subjects.CLAIMS_BUCKET}")
        broken = picture([stack(random.Random("other"), 1)[0], tars[1]])
        missing = registry.push("lost/blob", "latest", broken)
        forget(registry, "lost/blob", made.layers[1])
        with Crew(tmp_path / "empty", server.url, **EACH) as crew:
            async with connect(server.url, patience=LIMIT) as client:
                with pytest.raises(PullFailed) as failed:
                    await client.pull(missing, timeout=LIMIT)
                assert failed.value.code == "BLOB_UNKNOWN"
                await client.pull(reference, timeout=LIMIT)
            assert damage(crew.store, trees(tars)) == []
    finally:
        server.kill()


def forget(registry: RegistryServer, repository: str, digest: str) -> None:
    """Have a registry lose a blob of a repository."""
    connection = http.client.HTTPConnection(registry.host, timeout=LIMIT)
    connection.request("DELETE", f"/v2/{repository}/blobs/{digest}")
    assert connection.getresponse().status == 202
    connection.close()


# -- the queue is emptied ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["PURGE", "DELETE"])
async def test_orders_that_somebody_takes_away_are_given_again(
    registry: RegistryServer, nats_server: NatsServer, tmp_path: Path, how: str
) -> None:
    """`nats stream purge ORDERS`, or `rm`, while an order waits there: nobody would give it again while its claim stands."""
    reference = registry.push("queue/emptied", how.lower(), picture(stack(random.Random(how), 2)))
    with Crew(tmp_path / "home", nats_server.url, coordinator=1, unpacker=1) as crew:
        async with connect(crew.url, patience=LIMIT) as client, anybody(crew.url) as operator:
            pull = asyncio.ensure_future(client.pull(reference, timeout=LIMIT))
            await eventually(lambda: queued(operator))
            answer = json.loads((await operator.request(f"$JS.API.STREAM.{how}.ORDERS", timeout=LIMIT)).data)
            assert answer["success"]
            with Crew(tmp_path / "home", nats_server.url, mark="late", fetcher=1) as late:
                await pull
                assert late.unforeseen() == []
        assert crew.unforeseen() == []


async def queued(operator: Any) -> bool:
    """An order waits in the queue."""
    info = json.loads((await operator.request("$JS.API.STREAM.INFO.ORDERS", timeout=LIMIT)).data)
    return bool(info["state"]["messages"])

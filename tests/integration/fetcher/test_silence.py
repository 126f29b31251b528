"""Registries that take a request and say nothing: what that costs them, and what it does not cost others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pullonce.errors import Retryable
from schemas.events import BlobFetched, Event, PullFailed, PullResolved, PullUnresolved
from schemas.oci import Digest
from schemas.orders import FetchBlob, RecordImage, ResolveReference
from schemas.routing import order_subject
from services.fetcher.remote.silence import REST
from services.fetcher.settings import RegistrySettings
from tests.integration.fetcher.conftest import Opened
from tests.integration.fetcher.test_service import service
from tests.support.buses import LIMIT, NatsPlace, Reader, eventually
from tests.support.faulty import FaultyRegistry, held_until, stalls_after
from tests.support.images import image, index, layer, tar_of

SMALL = image([layer(tar_of({"small": b"small"}))])
MANY = 100


class Silent:
    """Takes connections and says nothing; counts them."""

    def __init__(self) -> None:
        self.host = ""
        self.connections = 0

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.read()
        writer.close()


@asynccontextmanager
async def silent() -> AsyncIterator[Silent]:
    """A server on the loopback that never answers."""
    found = Silent()
    server = await asyncio.start_server(found._take, "127.0.0.1", 0)
    found.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


def resolve(reference: str, number: int, **given: str) -> ResolveReference:
    return ResolveReference(reference=reference, flight=f"{number:016x}", opened=number, revision=number, **given)  # type: ignore[arg-type]


def of(reader: Reader, kind: type[Event]) -> list[Event]:
    return [each.event for each in reader.read if isinstance(each.event, kind)]


async def test_pulls_from_a_silent_registry_hold_up_no_other_and_nothing_that_is_there(nats_url: str, tmp_path: Path) -> None:
    """A hundred of them, and nobody has given up on it yet when the others are done."""
    async with (
        silent() as nobody,
        FaultyRegistry(SMALL) as registry,
        NatsPlace(nats_url).connect() as bus,
        Reader(bus) as reader,
        service(tmp_path, nats_url, PULLONCE_PATIENCE=str(LIMIT), PULLONCE_FRESH="0"),
    ):
        first = resolve(registry.reference, 1)
        await bus.orders.send(first)
        await reader.until(lambda _: bool(of(reader, PullResolved)))
        (resolved,) = of(reader, PullResolved)
        assert isinstance(resolved, PullResolved)
        (only,) = resolved.layers
        await bus.orders.send(FetchBlob(blob=only.blob, source=resolved.source, revision=1))
        await reader.until(lambda _: bool(of(reader, BlobFetched)))
        await bus.orders.send(
            RecordImage(
                reference=resolved.reference, flight=first.flight, opened=1, revision=1, platform=resolved.platform,
                digest=resolved.digest, manifest=resolved.manifest, config=resolved.config,
            )
        )  # fmt: skip
        for number in range(MANY):
            await bus.orders.send(resolve(f"{nobody.host}/app:{number}", 100 + number))
            blob = only.blob.digest[:-3] + f"{number:03}"
            source = type(resolved.source)(registry=nobody.host, repository="app")
            await bus.orders.send(
                FetchBlob(blob=type(only.blob)(media_type="", digest=Digest(blob), size=9), source=source, revision=1)
            )
        asked = len(registry.seen)
        await bus.orders.send(resolve(registry.reference, 2))
        await reader.until(lambda _: len(of(reader, PullResolved)) == 2)
        assert len(registry.seen) == asked + 1, "its tag was asked for"
        await bus.orders.send(resolve(registry.reference, 3, policy="if-not-present"))
        await reader.until(lambda _: len(of(reader, PullResolved)) == 3)
        assert len(registry.seen) == asked + 1, "what is there needs no network"
        assert not of(reader, PullUnresolved)
        assert nobody.connections <= 8 + 3, "so many for resolving, so many for blobs"


async def test_who_has_left_a_silent_registry_waits_for_nothing_there(nats_url: str, tmp_path: Path) -> None:
    """The flight has ended: its order is gone from the queue, and its slot is free."""
    async with (
        silent() as nobody,
        NatsPlace(nats_url).connect() as bus,
        Reader(bus) as reader,
        service(tmp_path, nats_url, PULLONCE_PATIENCE=str(LIMIT), PULLONCE_RESOLVES_PER_REGISTRY="1"),
    ):
        orders = [resolve(f"{nobody.host}/app:{number}", 100 + number) for number in range(3)]
        for order in orders:
            await bus.orders.send(order)

        async def asked() -> bool:
            return nobody.connections == 1

        await eventually(asked)
        for order in orders:
            left = PullFailed(
                reference=order.reference, flight=order.flight, opened=order.opened, covers=order.opened + 1,
                code="pull.cancelled", message="left",
            )  # fmt: skip
            await bus.log.append(left)

        async def gone() -> bool:
            return not any([await bus.orders.is_out(order_subject(order)) for order in orders])

        await eventually(gone)
        assert not of(reader, PullUnresolved)


async def test_a_registry_that_was_silent_costs_the_next_ones_little(fetcher: Opened) -> None:
    async with silent() as nobody, fetcher(settings=RegistrySettings(patience=1.0)) as f:
        with pytest.raises(Retryable, match=r"no answer|imeout"):
            await f.resolve(f"{nobody.host}/app:1")
        for number in range(20):
            with pytest.raises(Retryable, match="has not answered lately") as failed:
                await f.resolve(f"{nobody.host}/app:{number}")
            assert failed.value.code == "registry.unavailable" and failed.value.concerns == "source"
        assert nobody.connections == 1


async def test_a_registry_is_let_go_by_who_leaves_while_he_finds_out(fetcher: Opened) -> None:
    """The next one asks it, and is not told that it has not answered lately for as long as patience lasts."""
    async with silent() as nobody, fetcher(settings=RegistrySettings(patience=LIMIT)) as f:
        silence = f.registry._requests._transport._silence
        silence.missed(f"http://{nobody.host}", -LIMIT, -REST)
        for number in (1, 2, 3):
            asks = asyncio.ensure_future(f.resolve(f"{nobody.host}/app:{number}"))

            async def asked(number: int = number) -> bool:
                return nobody.connections == number

            await eventually(asked)
            assert not asks.done()
            asks.cancel()
            await asyncio.gather(asks, return_exceptions=True)


async def test_a_registry_that_answers_others_is_not_silent(fetcher: Opened) -> None:
    never = asyncio.Event()
    async with FaultyRegistry(SMALL) as registry, fetcher(settings=RegistrySettings(patience=1.0)) as f:
        registry.plan("HEAD", held_until(never))
        lost = asyncio.ensure_future(f.resolve(f"{registry.host}/app:lost"))

        async def asked() -> bool:
            return bool(registry.seen)

        await eventually(asked)
        await f.resolve(registry.reference)
        with pytest.raises(Retryable):
            await lost
        await f.resolve(registry.reference)
        never.set()


async def test_a_registry_that_speaks_again_is_asked_again(fetcher: Opened) -> None:
    never, spoken = asyncio.Event(), asyncio.Event()
    async with FaultyRegistry(SMALL) as registry, fetcher(settings=RegistrySettings(patience=1.0)) as f:
        registry.plan("HEAD", held_until(never))
        with pytest.raises(Retryable):
            await f.resolve(registry.reference)

        async def again() -> bool:
            try:
                await f.resolve(registry.reference)
            except Retryable:
                return False
            spoken.set()
            return True

        await eventually(again)
        assert spoken.is_set() and REST < LIMIT
        never.set()


async def test_a_document_that_a_silent_source_was_asked_for_first_comes_from_another_one(fetcher: Opened) -> None:
    """The attacker's index names the victim's manifest, and his registry never sends it."""
    victim = image([layer(tar_of({"app": random.Random(5).randbytes(100)}))], platform="linux/amd64")
    names_it = index([victim])
    never = asyncio.Event()
    async with (
        FaultyRegistry(names_it) as hostile,
        FaultyRegistry(victim) as honest,
        fetcher(settings=RegistrySettings(patience=LIMIT)) as f,
    ):
        sent = asyncio.Event()

        async def stall() -> None:
            sent.set()
            await never.wait()

        hostile.plan(f"manifests/{victim.digest}", stalls_after(5, stall()))
        first = asyncio.ensure_future(f.resolve(hostile.reference, platform="linux/amd64"))
        await sent.wait()
        resolved = await f.resolve(f"{honest.host}/app@{victim.digest}", platform="linux/amd64")
        assert resolved.manifest.digest == victim.digest and not first.done()
        never.set()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

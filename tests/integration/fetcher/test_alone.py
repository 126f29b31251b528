"""Blobs that are asked for alone: who may hold one, for how long, and who comes first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiohttp import web

from pullonce.bus.memory.bus import MemoryBus
from pullonce.errors import Permanent
from pullonce.store.proofs import Proofs
from schemas import registry as words
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher import alone
from services.fetcher.access import AccessRules
from services.fetcher.alone import Alone
from services.fetcher.answering import Answerer
from services.fetcher.auth.credentials import Credentials
from services.fetcher.settings import Bounds
from tests.integration.fetcher.conftest import ACCESS, Fetcher, Opened
from tests.support.faulty import Fault, FaultyRegistry
from tests.support.images import image, layer, tar_of

LAYER = layer(tar_of({"file": os.urandom(3_000_000)}))
IMAGE = image([LAYER])
DIGEST = Digest(LAYER.digest)
SIZE = len(IMAGE.blobs[DIGEST])


@dataclass
class Asked:
    """What a gateway asks a fetcher."""

    f: Fetcher
    alone: Alone
    answerer: Answerer

    async def ask(
        self, host: str, digest: Digest = DIGEST, *, begin: bool = True, repository: str = "any/thing"
    ) -> words.Answer:
        source = Source(registry=host, repository=repository, credential=words.ANONYMOUS)
        question = words.AskBlob(source=source, digest=digest, begin=begin)
        return words.decode_answer(await self.answerer.answer(words.encode(question)))

    @property
    def grown(self) -> int:
        path = self.f.content.ingest_path(DIGEST)
        return path.stat().st_size if path.exists() else 0

    @property
    def running(self) -> int:
        return sum(task.get_name().startswith("fetch sha256") for task in asyncio.all_tasks())


@asynccontextmanager
async def asking(fetcher: Opened, *, slow_rate: float = 16_384.0) -> AsyncIterator[Asked]:
    async with fetcher() as f:
        made = Alone(f.registry, f.content, f.handlers.transfers, MemoryBus().signals, store="default", slow_rate=slow_rate)
        try:
            access = AccessRules(f.registry, Credentials(f.content.root), Proofs(f.content.root), ACCESS)
            yield Asked(f, made, Answerer(f.registry, f.content, access, bounds=Bounds(), alone=made))
        finally:
            await made.close()


def drips(rate: int) -> Fault:
    """Send so many bytes a second."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse | None:
        if request.method == "HEAD":
            return None
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        for start in range(0, len(content), max(1, rate // 20)):
            await response.write(content[start : start + max(1, rate // 20)])
            await asyncio.sleep(0.05)
        return response

    return fault


async def ended(asked: Asked) -> None:
    async with asyncio.timeout(20):
        while asked.running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_only_who_wants_the_content_has_it_fetched(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, asking(fetcher) as asked:
        assert await asked.ask(registry.host, begin=False) == words.BlobFound(size=SIZE)
        assert not asked.running and not registry.asked("GET /v2/any/thing/blobs")
        assert await asked.ask(registry.host) == words.BlobFound(size=SIZE)
        await ended(asked)
        assert asked.f.content.has(DIGEST)


async def test_an_order_comes_first(fetcher: Opened) -> None:
    """Whatever registries say that they have the blob, and however slowly they send it."""
    async with (
        FaultyRegistry(IMAGE) as good,
        asking(fetcher, slow_rate=1.0) as asked,
        FaultyRegistry(IMAGE) as one,
        FaultyRegistry(IMAGE) as other,
    ):
        for each in (one, other):
            each.plan("blobs", drips(40_000), times=9)
            await asked.ask(each.host)
        async with asyncio.timeout(20):
            while not asked.grown:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert asked.running == 2
        async with asyncio.timeout(10):
            resolved = await asked.f.pull(good.reference)
        assert asked.f.content.has(resolved.layers[0].blob.digest)
        await ended(asked)


async def test_who_asks_no_more_lets_go(fetcher: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "LEASE", 0.5)
    monkeypatch.setattr(alone, "_INTERVAL", 0.1)
    async with FaultyRegistry(IMAGE) as registry, asking(fetcher, slow_rate=0.0) as asked:
        registry.plan("blobs", drips(100_000), times=9)
        await asked.ask(registry.host)
        heads = len(registry.asked("HEAD"))
        for _ in range(10):
            await asyncio.sleep(0.1)
            await asked.ask(registry.host)
        assert asked.running == 1, "as long as it is asked for"
        assert len(registry.asked("HEAD")) == heads, "the registry is not asked again"
        await ended(asked)
        assert not asked.f.content.has(DIGEST)


async def test_what_brings_next_to_nothing_ends(fetcher: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "_INTERVAL", 0.2)
    async with FaultyRegistry(IMAGE) as registry, asking(fetcher) as asked:
        registry.plan("blobs", drips(2_000), times=9)
        await asked.ask(registry.host)
        await ended(asked)
        assert not asked.f.content.has(DIGEST)


async def test_other_processes_have_their_turn_and_it_goes_on(fetcher: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "_INTERVAL", 0.1)
    monkeypatch.setattr(alone, "_TURN", 0.5)
    async with FaultyRegistry(IMAGE) as registry, asking(fetcher, slow_rate=0.0) as asked:
        registry.plan("blobs", drips(2_000_000), times=2)
        await asked.ask(registry.host)
        await ended(asked)
        assert asked.f.content.has(DIGEST)
        gets = registry.asked("GET /v2/any/thing/blobs")
        assert len(gets) > 1 and gets[1].headers["Range"].startswith("bytes=")


async def test_there_are_few_and_none_is_too_large(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, asking(fetcher, slow_rate=0.0) as asked:
        registry.plan("GET", drips(1000), times=99)
        for number in range(alone.MOST):
            assert isinstance(await asked.ask(registry.host, repository=f"any/{number}"), words.BlobFound)
        refused = await asked.ask(registry.host, repository="one/more")
        assert isinstance(refused, words.Refused) and refused.code == "fetcher.busy"
        await asked.alone.close()
        source = Source(registry=registry.host, repository="any", credential=words.ANONYMOUS)
        with pytest.raises(Permanent) as failed:
            asked.alone.begin(source, Descriptor(media_type="", digest=DIGEST, size=alone.LARGEST + 1))
        assert failed.value.code == "blob.oversized"


async def test_a_registry_that_lets_us_wait_keeps_nobody_from_asking_another(fetcher: Opened) -> None:
    release = asyncio.Event()

    async def waits(request: web.Request) -> web.Response | None:
        await release.wait()
        return None

    async with FaultyRegistry(IMAGE, guard=waits) as slow, FaultyRegistry(IMAGE) as good, asking(fetcher) as asked:
        many = [asyncio.create_task(asked.ask(slow.host, begin=False, repository=f"any/{each}")) for each in range(300)]
        assert await asked.ask(good.host, begin=False) == words.BlobFound(size=SIZE)
        release.set()
        told = await asyncio.gather(*many)
        refused = [each for each in told if isinstance(each, words.Refused)]
        assert {each.code for each in refused} == {"fetcher.busy"} and len(refused) < len(told)
        assert isinstance(await asked.ask(slow.host, begin=False), words.BlobFound)

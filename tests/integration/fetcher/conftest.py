"""A real registry, an empty store, and the fetcher's handlers between them."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pullonce.bus.memory.bus import MemoryBus
from pullonce.store.content import ContentStore, open_store
from pullonce.store.proofs import Proofs
from schemas.events import BlobFetched, PullResolved
from schemas.oci import Descriptor
from schemas.orders import FetchBlob, RecordImage, ResolveReference
from schemas.progress import BlobProgress, decode
from schemas.subjects import progress_filter
from services.fetcher.access import AccessRules
from services.fetcher.auth.credentials import Credentials
from services.fetcher.handlers import Handlers
from services.fetcher.remote.registry import Registry, connect
from services.fetcher.settings import AccessSettings, Bounds, RegistrySettings
from tests.support.registry import RegistryServer

FLIGHT = "0123456789abcdef"
SETTINGS = RegistrySettings(patience=2.0)
ACCESS = AccessSettings()


@dataclass
class Fetcher:
    """The handlers of one store, with what they say on the side."""

    content: ContentStore
    registry: Registry
    handlers: Handlers
    progress: list[BlobProgress]

    async def resolve(self, reference: str, **given: str) -> PullResolved:
        order = ResolveReference(reference=reference, flight=FLIGHT, opened=7, revision=3, **given)  # type: ignore[arg-type]
        *_, resolved = await self.handlers.resolve_reference(order)
        assert isinstance(resolved, PullResolved)
        return resolved

    async def fetch(self, resolved: PullResolved, blob: Descriptor) -> BlobFetched:
        try:
            *_, fetched = await self.handlers.fetch_blob(FetchBlob(blob=blob, source=resolved.source, revision=5))
        finally:
            await asyncio.sleep(0)  # the memory bus hands signals on in the loop's next turn
        assert isinstance(fetched, BlobFetched)
        return fetched

    async def pull(self, reference: str, **given: str) -> PullResolved:
        """Resolve, fetch what is missing, list: what a flight without unpacking orders."""
        resolved = await self.resolve(reference, **given)
        for layer in resolved.layers:
            if not layer.fetched:
                await self.fetch(resolved, layer.blob)
        await self.handlers.record_image(record_of(resolved))
        return resolved


def record_of(resolved: PullResolved, *, unpacked: bool = False) -> RecordImage:
    """The order that follows when everything of a resolved image is there."""
    return RecordImage(
        reference=resolved.reference,
        flight=resolved.flight,
        opened=resolved.opened,
        platform=resolved.platform,
        digest=resolved.digest,
        manifest=resolved.manifest,
        config=resolved.config,
        chain_ids=tuple(layer.chain_id for layer in resolved.layers) if unpacked else (),
        source=resolved.source,
    )


Opened = Callable[..., AbstractAsyncContextManager[Fetcher]]


@pytest.fixture
def fetcher(tmp_path: Path) -> Opened:
    """`async with fetcher(…) as f`: handlers on an empty store below the test's directory."""

    @asynccontextmanager
    async def opened(
        *,
        configs: tuple[Path, ...] = (),
        settings: RegistrySettings = SETTINGS,
        root: str = "store",
        at_once: int = 3,
        access: AccessSettings = ACCESS,
    ) -> AsyncIterator[Fetcher]:
        content = open_store(tmp_path / root)
        bus = MemoryBus()
        credentials = Credentials(tmp_path / "credentials", configs, brought=content.layout.credentials)
        async with connect(settings, credentials, "test") as registry:
            progress: list[BlobProgress] = []

            def heard(_: str, body: bytes) -> None:
                message = decode(body)
                assert isinstance(message, BlobProgress)
                progress.append(message)

            await bus.signals.subscribe(progress_filter("default"), heard)
            proofs = Proofs(content.root, lifetime=access.lifetime)
            bounds = Bounds(fetches_per_registry=at_once)
            doors = AccessRules(registry, credentials, proofs, access)
            handlers = Handlers(registry, content, bus.signals, access=doors, store="default", bounds=bounds)
            yield Fetcher(content, registry, handlers, progress)

    return opened


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """An empty docker-registry of this test's own."""
    server = RegistryServer(tmp_path / "registry").start()
    yield server
    server.stop()


@pytest.fixture
def own(tmp_path: Path) -> ssl.SSLContext:
    """A certificate that nobody vouches for."""
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=own"]
    words += ["-keyout", "own.key", "-out", "own.pem", "-days", "2"]
    subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "own.key")
    return context

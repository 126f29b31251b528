"""A store with one image, and what pushes it, without a bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pullonce.store.content import ContentStore, open_store
from schemas.push import PushImage, PushStatus
from services.fetcher.auth.credentials import Credentials
from services.fetcher.pushing.push import Push, Pusher
from services.fetcher.pushing.records import UploadRecords
from services.fetcher.remote.registry import connect
from services.fetcher.settings import RegistrySettings
from services.fetcher.slots import Slots
from tests.integration.exchange.conftest import list_image
from tests.support.images import Image
from tests.support.odd_pushes import IMAGE, PART

NAME = "registry.example/team/app:1"


@dataclass
class PushingStore:
    """A store with one image, and what pushes it."""

    content: ContentStore
    pusher: Pusher

    async def push(self, target: str, reference: str = NAME, **given: bool | str) -> PushStatus:
        told: list[PushStatus] = []
        wanted = PushImage(id="0" * 16, reference=reference, target=target, **given)  # type: ignore[arg-type]
        await Push(self.pusher, wanted, PushStatus(id=wanted.id), told.append).run()
        return told[-1]

    def left(self) -> list[Path]:
        """Records of uploads that have not ended."""
        return list(self.content.layout.uploads.iterdir())


@asynccontextmanager
async def pushing_store(
    home: Path, given: Image = IMAGE, *, configs: tuple[Path, ...] = (), hosts: Path | None = None
) -> AsyncIterator[PushingStore]:
    """The image is listed as `NAME`; parts are small."""
    content = open_store(home / "store", sync=False)
    list_image(content, NAME, given)
    credentials = Credentials(home / "credentials", configs=configs)
    async with connect(RegistrySettings(patience=5.0, hosts=hosts), credentials, "test") as registry:
        records = UploadRecords(content.layout.uploads)
        yield PushingStore(content, Pusher(registry, content, records, Slots(3), 3, PART))

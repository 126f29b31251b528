"""Wait for what lies on the disk: the first bytes of a blob, the verified blob, the layer below."""

import asyncio
from collections.abc import Callable

from pullonce.store.content import ContentStore
from pullonce.store.snapshots import Snapshots
from schemas.oci import ChainID
from schemas.orders import UnpackLayer
from services.unpacker.failures import nobody
from services.unpacker.news import News, Watch

_PATIENCE = 3600.0
"""Seconds without any sign of life after which an order is given up, so that its key is free again."""


class DiskWaits:
    """The waits of an unpack. All of them look first, then wait for news, then look again.

    Raises:
        Permanent: whoever was to bring it has given up, or nothing was heard for an hour. It concerns nobody; from all methods.
    """

    def __init__(self, content: ContentStore, snapshots: Snapshots, news: News) -> None:
        self._content = content
        self._snapshots = snapshots
        self._news = news

    async def bytes(self, order: UnpackLayer, watch: Watch) -> None:
        """Wait until there is something to unpack."""
        await _until(lambda: self._content.has(order.blob.digest) or self._has_begun(order), watch, f"blob {order.blob.digest}")

    async def blob(self, order: UnpackLayer, watch: Watch) -> None:
        """Wait until the blob is verified."""
        await _until(lambda: self._content.has(order.blob.digest), watch, f"blob {order.blob.digest}")

    async def parent(self, order: UnpackLayer) -> None:
        """Wait until the layer below is committed; the lowest has none."""
        if order.parent:
            with self._news.watch("layer", order.parent) as watch:
                await _until(lambda: self._snapshots.has(order.parent), watch, f"layer {order.parent}")

    async def chain(self, order: UnpackLayer) -> list[ChainID]:
        """Wait until all layers below are committed: one that needed nothing of those below it may be there before them.

        Returns:
            They, from the top down.
        """
        found: list[ChainID] = []
        below = order.parent
        while below:
            if not self._snapshots.has(below):
                with self._news.watch("layer", below) as watch:
                    await _until(lambda: self._snapshots.has(below), watch, f"layer {below}")  # noqa: B023
            found.append(below)
            below = self._snapshots.parent(below)
        return found

    def _has_begun(self, order: UnpackLayer) -> bool:
        try:
            return self._content.ingest_path(order.blob.digest).stat().st_size > 0
        except FileNotFoundError:
            return False


async def _until(there: Callable[[], bool], watch: Watch, what: str) -> None:
    while not there():
        if watch.failed:
            raise nobody(f"the {what} did not come", "unpack.aborted")
        try:
            async with asyncio.timeout(_PATIENCE):
                await watch.changed()
        except TimeoutError:
            raise nobody(f"nothing was heard of the {what} for {_PATIENCE:.0f} s", "unpack.stalled") from None

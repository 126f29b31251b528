"""Blobs from a registry into the store: in turn, continued where an attempt broke, asked for anew where it was wrong."""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress

from pullonce.errors import Permanent
from pullonce.store.content import ContentStore
from pullonce.store.ingest import Ingest
from pullonce.worker.stopwatch import turn
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher.progress import FetchProgress
from services.fetcher.remote.judgement import Delivered
from services.fetcher.remote.registry import Registry
from services.fetcher.settings import Bounds
from services.fetcher.slots import Shares, Slots

log = logging.getLogger(__name__)

_ONCE_MORE = (
    *("digest.mismatch", "size.mismatch", "registry.ranges", "registry.encoding"),
    *("BLOB_UNKNOWN", "NAME_UNKNOWN", "DENIED", "layer.foreign"),
)
"""Codes of what storage behind a registry answers now and then though the blob is there and whole."""


class Transfers:
    """Brings blobs in, so many at a time.

    Args:
        delivered: told what a registry has sent, from the first byte to the last, once it is verified.
    """

    def __init__(self, registry: Registry, content: ContentStore, bounds: Bounds, delivered: Delivered) -> None:
        self._registry = registry
        self._content = content
        self._delivered = delivered
        self._slots = Slots(bounds.fetches_per_registry)
        self._shares = Shares(bounds.fetches, rate=bounds.slow_rate)
        self._ordered: Counter[Digest] = Counter()
        self._way: Callable[[Digest], None] = lambda digest: None

    def tell(self, ordered: Callable[[Digest], None]) -> None:
        """From now on somebody is told of each blob that an order wants, before it is waited for."""
        self._way = ordered

    def ordered(self, digest: Digest) -> bool:
        """Whether an order wants a blob now."""
        return self._ordered[digest] > 0

    async def fetch(self, source: Source, blob: Descriptor, progress: FetchProgress) -> bool:
        """Bring a blob in that an order wants; whether it was there already, once whoever else was writing it had ended.

        Raises:
            Permanent, Retryable: the source does not give it, or the disk refuses.
        """
        self._ordered[blob.digest] += 1
        try:
            self._way(blob.digest)
            return await self.fetch_alone(source, blob, progress)
        finally:
            self._ordered -= Counter((blob.digest,))

    async def fetch_alone(self, source: Source, blob: Descriptor, progress: FetchProgress) -> bool:
        """The same of a blob that no order wants."""
        turn("slot")
        async with AsyncExitStack() as slot:
            await slot.enter_async_context(self._slots.of(source.registry))
            turn("look")
            async with self._content.ingest(blob) as ingest:
                if ingest.present:
                    return True
                await self._transfer(source, blob, ingest, progress, slot)
                return False

    async def _transfer(
        self, source: Source, blob: Descriptor, ingest: Ingest, progress: FetchProgress, slot: AsyncExitStack
    ) -> None:
        """From the registry into the growing file, and into view once it is verified.

        What is wrong or refused once may be a cache on the way, a storage that lags, a part out of a bad place: it is asked for
        anew, from byte 0 and past mirrors and caches, before anybody is told that it failed.

        Args:
            slot: holds one of the registry's slots; given back as soon as nothing more comes from there.
        """
        continued = ingest.offset > 0  # whose beginning came from wherever an earlier attempt asked
        try:
            try:
                await self._receive(source, blob, ingest, progress)
                await slot.aclose()
                await self._verify(ingest, progress)
            except Permanent as exc:
                if exc.code not in _ONCE_MORE:
                    raise
                log.warning("asked for anew: %s", exc, extra={"digest": blob.digest})
                await ingest.restart()
                continued = False
                await self._receive(source, blob, ingest, progress, anew=True)
                await self._verify(ingest, progress)
        except BaseException as exc:
            with suppress(Permanent):
                await ingest.flush()
            await progress.aborted(ingest.stored, self._registry.secrets.told(str(exc)) or type(exc).__name__)
            raise
        if not continued:
            await self._delivered(source, blob.digest)

    async def _receive(
        self, source: Source, blob: Descriptor, ingest: Ingest, progress: FetchProgress, *, anew: bool = False
    ) -> None:
        turn("slot")
        async with self._shares.one() as share:
            turn("answer")
            if ingest.small:
                progress.soon()
            else:
                await progress.advance(ingest.stored)
            async with aclosing(self._registry.blob(source, blob, ingest.offset, anew=anew)) as body:
                async for chunk in body:
                    turn("transfer")
                    await share.took(len(chunk))
                    await ingest.write(chunk)
                    await progress.advance(ingest.stored)

    async def _verify(self, ingest: Ingest, progress: FetchProgress) -> None:
        turn("verify")
        if not ingest.small:
            await ingest.flush()
            await progress.advance(ingest.stored)  # whoever follows need not wait until the disk has it all
        await ingest.commit()

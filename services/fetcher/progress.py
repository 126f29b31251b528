"""Tells whoever listens how far a fetch is: the unpacker follows the growing file by it, people watch it."""

import asyncio
from collections.abc import Callable

import msgspec

from pullonce.bus.ports import Signals
from pullonce.store.content import ContentStore
from schemas.oci import Descriptor, Digest
from schemas.progress import BlobProgress
from schemas.routing import progress_subject

_INTERVAL = 0.1
_SHORT_INTERVAL = 0.02
_MUCH = 4 << 20
"""Bytes whose arrival is told after the short interval: whoever unpacks them would soon have nothing to do."""


class FetchProgress:
    """Progress of one fetch: its beginning, first and last bytes at once; between them ten words a second, or fifty for much.
    Of a small blob that it has begun is said after a tenth of a second.

    Args:
        store: name of the store the blob is fetched into.
    """

    def __init__(self, signals: Signals, store: str, blob: Descriptor) -> None:
        self._signals = signals
        self._store = store
        self._blob = blob
        self._told = -1
        self._when = 0.0
        self._late: asyncio.TimerHandle | None = None
        self._saying: asyncio.Task[None] | None = None

    @property
    def told(self) -> int:
        """Bytes of which was told last; -1 before it begins."""
        return self._told

    def soon(self) -> None:
        """Say that it has begun, unless it has ended by then: of most small blobs the end says all."""
        self._end()  # it may begin anew
        self._told = 0
        self._late = asyncio.get_running_loop().call_later(_INTERVAL, self._say_begun)

    def _say_begun(self) -> None:
        self._saying = asyncio.ensure_future(self._say(self._fetching(self._told)))

    async def advance(self, done: int) -> None:
        """`done` bytes lie in the growing file."""
        new, passed = done - self._told, asyncio.get_running_loop().time() - self._when
        landmark = self._told <= 0 or done == self._blob.size
        if new and (landmark or passed >= (_SHORT_INTERVAL if new >= _MUCH else _INTERVAL)):
            self._told, self._when = done, self._when + passed
            await self._say(self._fetching(done))

    async def verified(self) -> None:
        """The blob is visible in the content store."""
        self._end()
        size = self._blob.size
        message = BlobProgress(store=self._store, digest=self._blob.digest, size=size, done=size, state="verified")
        await self._say(message)

    async def aborted(self, done: int, error: str) -> None:
        """This attempt came to nothing; what it wrote stays for the next one."""
        self._end()
        message = BlobProgress(
            store=self._store, digest=self._blob.digest, size=self._blob.size, done=done, error=error, state="aborted"
        )
        await self._say(message)

    def _fetching(self, done: int) -> BlobProgress:
        return BlobProgress(store=self._store, digest=self._blob.digest, size=self._blob.size, done=done)

    def _end(self) -> None:
        if self._late is not None:
            self._late.cancel()

    async def _say(self, message: BlobProgress) -> None:
        await self._signals.publish(progress_subject(message), msgspec.json.encode(message))


def on_disk(content: ContentStore, store: str) -> Callable[[str], BlobProgress | None]:
    """What the disk says of a digest: that the blob is there, or how much of it; None where there is nothing of it."""

    def look(name: str) -> BlobProgress | None:
        digest = Digest(name)
        if content.has(digest):
            size = content.blob_path(digest).stat().st_size
            return BlobProgress(store=store, digest=digest, done=size, size=size, state="verified")
        path = content.ingest_path(digest)
        return BlobProgress(store=store, digest=digest, done=path.stat().st_size) if path.exists() else None

    return look

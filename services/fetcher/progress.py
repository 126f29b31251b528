"""Tells whoever listens how far a fetch is: the unpacker follows the growing file by it, people watch it."""

import asyncio

import msgspec

from pullonce.bus import Signals
from schemas.oci import Descriptor
from schemas.progress import BlobProgress
from schemas.subjects import progress_subject

_INTERVAL = 0.1


class Announcer:
    """Progress of one fetch: the first word at once, then at most ten a second, the last one always.

    Args:
        store: name of the store the blob is fetched into.
    """

    def __init__(self, signals: Signals, store: str, blob: Descriptor) -> None:
        self._signals = signals
        self._store = store
        self._blob = blob
        self._next = 0.0

    async def advance(self, done: int) -> None:
        """`done` bytes lie in the growing file."""
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + _INTERVAL
            await self._say(BlobProgress(store=self._store, digest=self._blob.digest, size=self._blob.size, done=done))

    async def verified(self) -> None:
        """The blob is visible in the content store."""
        size = self._blob.size
        message = BlobProgress(store=self._store, digest=self._blob.digest, size=size, done=size, state="verified")
        await self._say(message)

    async def retrying(self, error: str, seconds: float) -> None:
        """This attempt came to nothing, and there will be another."""
        await self._say(
            BlobProgress(
                store=self._store,
                digest=self._blob.digest,
                size=self._blob.size,
                error=error,
                retry_in=seconds,
                state="retrying",
            )
        )

    async def aborted(self, done: int, error: str) -> None:
        """This attempt came to nothing; what it wrote stays for the next one."""
        message = BlobProgress(
            store=self._store, digest=self._blob.digest, size=self._blob.size, done=done, error=error, state="aborted"
        )
        await self._say(message)

    async def _say(self, message: BlobProgress) -> None:
        await self._signals.publish(progress_subject(message), msgspec.json.encode(message))

"""Blobs that are asked for alone: no manifest is known that names them, and no order brings them.

Whoever asks may be anybody, and so may the registry be that they name. So such a fetch lasts only while it is asked for again;
one that brings next to nothing ends; there are few of them, of bounded size; and it gives way as soon as an order wants that
blob. To fetchers in other processes it gives way after a while, whether or not one wants it.
"""

import asyncio
import logging
from dataclasses import dataclass

from pullonce.bus.ports import Signals
from pullonce.errors import Permanent, PullonceError, Retryable
from pullonce.store.content import ContentStore
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from schemas.registry import LEASE
from services.fetcher.progress import FetchProgress
from services.fetcher.remote.registry import Registry
from services.fetcher.transfers import Transfers

log = logging.getLogger(__name__)

MOST = 8
"""Fetches at a time."""
LARGEST = 16 << 30
"""Bytes of a blob that is fetched for whoever names it."""
_INTERVAL = 4.0
"""Seconds between looks at what has come."""
_TURN = 30.0
"""Seconds after which it gives way to other processes, and goes on where it was unless one has taken over."""
_PAUSE = 0.2

Key = tuple[Source, Digest]


@dataclass(slots=True)
class _Fetch:
    size: int
    task: asyncio.Task[None]
    until: float
    """The end of its lease, on the loop's clock."""


class Alone:
    """What is fetched without an order, for one store.

    Args:
        store: its name.
        slow_rate: bytes a second below which a fetch ends.
    """

    def __init__(
        self, registry: Registry, content: ContentStore, transfers: Transfers, signals: Signals, *, store: str, slow_rate: float
    ) -> None:
        self._secrets = registry.secrets
        self._content = content
        self._transfers = transfers
        self._signals = signals
        self._store = store
        self._slow = slow_rate * _INTERVAL
        self._fetches: dict[Key, _Fetch] = {}
        transfers.tell(self._give_way)

    def renew(self, source: Source, digest: Digest) -> int | None:
        """Go on for another lease with what is being fetched for the same question; its size. None: it is not."""
        fetch = self._fetches.get((source, digest))
        if fetch is None:
            return None
        fetch.until = asyncio.get_running_loop().time() + LEASE
        return fetch.size

    def begin(self, source: Source, blob: Descriptor) -> None:
        """Fetch a blob that its registry has, for the time of a lease. Not where it is there, or an order brings it.

        Raises:
            Permanent: `blob.oversized`; Retryable: `fetcher.busy`.
        """
        if self._content.has(blob.digest) or self._transfers.ordered(blob.digest):
            return
        if blob.size > LARGEST:
            what = f"{blob.digest} has {blob.size} bytes; alone, without its manifest, {LARGEST} are fetched at most"
            raise Permanent(what, code="blob.oversized")
        if len(self._fetches) >= MOST:
            what = f"{MOST} blobs are being fetched alone, without their manifests; ask for the manifest first, or later"
            raise Retryable(what, code="fetcher.busy")
        key, loop = (source, blob.digest), asyncio.get_running_loop()
        task = loop.create_task(self._run(key, blob), name=f"fetch {blob.digest}")
        self._fetches[key] = _Fetch(blob.size, task, loop.time() + LEASE)
        task.add_done_callback(lambda _: self._fetches.pop(key, None))

    async def close(self) -> None:
        """Break off what is being fetched."""
        tasks = [fetch.task for fetch in self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_way(self, digest: Digest) -> None:
        for (_, each), fetch in self._fetches.items():
            if each == digest:
                fetch.task.cancel()

    async def _run(self, key: Key, blob: Descriptor) -> None:
        """It is said to nobody: the blob is on the disk then, or it is not."""
        source, progress = key[0], FetchProgress(self._signals, self._store, blob)
        try:
            with self._secrets.cleaning():
                while not await self._turn(key, blob, progress):  # noqa: ASYNC110 (it is no wait: others have their turn)
                    await asyncio.sleep(_PAUSE)
            await progress.verified()
            log.info("fetched for whoever asked for it alone", extra={"digest": blob.digest, "size": blob.size})
        except (PullonceError, OSError) as exc:
            told = self._secrets.told(str(exc))
            log.warning("not fetched: %s", told, extra={"digest": blob.digest, "registry": source.registry})

    async def _turn(self, key: Key, blob: Descriptor, progress: FetchProgress) -> bool:
        """Fetch for a while; whether all of it is there.

        Raises:
            Retryable: nobody asks for it any more, or next to nothing comes; Permanent, Retryable: as `Transfers.fetch`.
        """
        loop = asyncio.get_running_loop()
        fetching = loop.create_task(self._transfers.fetch_alone(key[0], blob, progress), name=f"turn {blob.digest}")
        ends, before = loop.time() + _TURN, -1
        try:
            while not (await asyncio.wait({fetching}, timeout=_INTERVAL))[0]:
                if self._fetches[key].until < loop.time():
                    raise Retryable("nobody asks for it any more", code="fetcher.left")
                if before >= 0 and progress.told - before < min(self._slow, blob.size - before):
                    raise Retryable(f"{key[0].registry} sends next to nothing of it", code="registry.unavailable")
                before = progress.told
                if loop.time() > ends and before < blob.size:
                    return False
            await fetching
            return True
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

"""The fetcher's orders: resolve a reference, fetch a blob, list an image. Each returns what is now true of the disk.

Every handler may be called again with the same order, after a crash or beside another fetcher: it looks at the disk first.
"""

import asyncio
import logging
import os
from functools import partial

from pullonce.bus.ports import Signals
from pullonce.errors import Permanent, PlatformInvalid, ReferenceInvalid, Retryable
from pullonce.oci import platform as platforms
from pullonce.oci.digest import digest_bytes
from pullonce.oci.reference import Reference, parse
from pullonce.printable import printable
from pullonce.store.content import ContentStore, open_store
from pullonce.store.images import ImageRecord
from pullonce.worker.stopwatch import timed
from schemas.events import (
    CONTENT_MISSING,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Event,
    LayerLost,
    PullRecorded,
    PullResolved,
    PullUnrecorded,
    PullUnresolved,
    Source,
    StoreOpened,
)
from schemas.oci import Descriptor
from schemas.orders import FetchBlob, Order, RecordImage, ResolveReference
from services.fetcher.access import AccessRules
from services.fetcher.auth.redaction import Secrets
from services.fetcher.documents.manifest import DOCKER_MANIFEST, MANIFEST_LIMIT, OCI_MANIFEST, check_stack, in_oci_types
from services.fetcher.documents.resolve import Image
from services.fetcher.finding import Finder
from services.fetcher.inventory import Incomplete, Inventory
from services.fetcher.progress import FetchProgress
from services.fetcher.remote.registry import Registry
from services.fetcher.settings import Bounds
from services.fetcher.slots import Slots
from services.fetcher.telling import telling_no_secrets
from services.fetcher.transfers import Transfers

log = logging.getLogger(__name__)

Failure = Permanent | Retryable

_LONGEST_MESSAGE = 2000
"""Letters of a failure's message: events stay small, however many servers were asked and whatever they said."""
_GONE = ("blob.missing", "blob.damaged")


class Handlers:
    """Carries out the orders for one store.

    Args:
        access: who may have what is there.
        store: its name.
        bounds: how much is asked for at a time.

    Attributes:
        transfers: brings blobs in.
    """

    def __init__(
        self,
        registry: Registry,
        content: ContentStore,
        signals: Signals,
        *,
        access: AccessRules,
        store: str,
        bounds: Bounds,
    ) -> None:
        self._registry = registry
        self._content = content
        self._inventory = Inventory(content)
        self._signals = signals
        self._store = store
        self._incarnation = content.incarnation
        self._finder = Finder(registry, content, self._inventory, access, Slots(bounds.resolves_per_registry))
        self.transfers = Transfers(registry, content, bounds, access.delivered)
        self._looks = asyncio.Semaphore(bounds.looks)

    @timed("store")
    @telling_no_secrets
    async def resolve_reference(self, order: ResolveReference) -> list[Event]:
        """Find out what a reference names, and store its manifest and config."""
        opened = self._reopened()
        reference, wanted = _read(order)
        source, image = await self._finder.find(order, reference, wanted)
        if order.unpack:
            check_stack(image.diff_ids, str(reference))
        if not platforms.serves(image.platform, wanted):
            log.warning("%s is for %s only, not for %s", reference, image.platform, wanted, extra={"flight": order.flight})
        log.info("resolved %s", reference, extra={"digest": image.digest, "flight": order.flight})
        resolved = await self._resolved(order, source, image)
        await self._finder.check_found(source, image, resolved.layers)
        self._inventory.check_room(resolved.layers)
        await self._tell_brought(resolved)
        return self._telling(opened, resolved)

    async def _tell_brought(self, resolved: PullResolved) -> None:
        """Say that layers are there which are not unpacked: an unpacker may follow a transfer that stands still, while somebody
        brought the blob by an import."""
        for layer in resolved.layers:
            if layer.fetched and not layer.unpacked:
                await FetchProgress(self._signals, self._store, layer.blob).verified()

    @timed("look")
    @telling_no_secrets
    async def fetch_blob(self, order: FetchBlob) -> list[Event]:
        """Bring a blob into the content store."""
        opened = self._reopened()
        source, blob = _checked(order.source), order.blob
        progress = FetchProgress(self._signals, self._store, blob)
        reused = self._content.has(blob.digest)
        if not reused:
            reused = await self.transfers.fetch(source, blob, progress)
        await progress.verified()
        log.info("reused" if reused else "fetched", extra={"digest": blob.digest, "size": blob.size})
        fetched = BlobFetched(store=order.store, digest=blob.digest, size=blob.size, revision=order.revision, reused=reused)
        return self._telling(opened, fetched)

    @timed("record")
    @telling_no_secrets
    async def record_image(self, order: RecordImage) -> list[Event]:
        """List an image under its reference. Manifest and config that were lost since it was resolved are fetched again."""
        opened = self._reopened()
        try:
            return self._telling(opened, *await self._record(order))
        except Permanent as exc:
            if order.source is None or exc.code not in _GONE:
                raise
            log.warning("cannot list %s yet: %s", order.reference, exc, extra={"flight": order.flight})
        await self._finder.restore(order, _checked(order.source))
        return self._telling(opened, *await self._record(order))

    async def _record(self, order: RecordImage) -> list[Event]:
        await self._finder.check_listed(order)
        record = ImageRecord(
            reference=order.reference,
            platform=order.platform,
            digest=order.digest,
            manifest=order.manifest,
            image_id=order.config.digest,
            listed=await self._translated(order.manifest),
            chain_ids=order.chain_ids,
        )
        try:
            check = partial(self._inventory.check_complete, order, record.listed)
            async with self._looks:
                await asyncio.to_thread(self._content.images.record, record, check)
        except Incomplete as exc:
            log.warning("cannot list %s yet: %s", order.reference, exc, extra={"flight": order.flight})
            return [*_lost(order, exc), self._unrecorded(order, CONTENT_MISSING, str(exc))]
        log.info("listed %s", order.reference, extra={"digest": order.digest, "flight": order.flight})
        recorded = PullRecorded(
            store=order.store,
            reference=order.reference,
            flight=order.flight,
            opened=order.opened,
            revision=order.revision,
        )
        return [recorded]

    def give_up(self, order: Order, failure: Failure) -> Event:
        """The fact that says an order has failed for good."""
        message = printable(str(failure), _LONGEST_MESSAGE)
        match order:
            case FetchBlob():
                return BlobFailed(
                    store=order.store,
                    digest=order.blob.digest,
                    revision=order.revision,
                    source=order.source,
                    concerns=failure.concerns,
                    code=failure.code,
                    message=message,
                )
            case RecordImage():
                return self._unrecorded(order, failure.code, message)
            case ResolveReference():
                return PullUnresolved(
                    store=order.store,
                    reference=order.reference,
                    flight=order.flight,
                    opened=order.opened,
                    code=failure.code,
                    message=message,
                    revision=order.revision,
                )
            case _:
                raise TypeError(f"the fetcher takes no {type(order).__name__}")

    @property
    def secrets(self) -> Secrets:
        """What must not be told."""
        return self._registry.secrets

    # -- below: one step each --

    def _reopened(self) -> list[StoreOpened]:
        """A store that was wiped under us begins a new life, and everybody must know before they hear anything else of it."""
        if self._content.incarnation == self._incarnation:
            return []
        incarnation = open_store(self._content.root).incarnation
        log.warning("the store was wiped; it is empty now", extra={"incarnation": incarnation})
        return [StoreOpened(store=self._store, incarnation=incarnation)]

    def _telling(self, opened: list[StoreOpened], *facts: Event) -> list[Event]:
        """The facts of an order behind that of a new life, which an order that fails leaves to the next one to tell."""
        if opened:
            self._incarnation = opened[-1].incarnation
        return [*opened, *facts]

    def _unrecorded(self, order: RecordImage, code: str, message: str) -> PullUnrecorded:
        return PullUnrecorded(
            store=order.store,
            reference=order.reference,
            flight=order.flight,
            opened=order.opened,
            code=code,
            message=message,
            revision=order.revision,
        )

    async def _resolved(self, order: ResolveReference, source: Source, image: Image) -> PullResolved:
        async with self._looks:
            layers, recorded = await asyncio.to_thread(self._inventory.take_stock, order, image)
        return PullResolved(
            store=order.store,
            reference=order.reference,
            flight=order.flight,
            opened=order.opened,
            platform=image.platform,
            source=source,
            digest=image.digest,
            manifest=image.manifest,
            config=image.config,
            layers=layers,
            recorded=recorded,
            revision=order.revision,
        )

    async def _translated(self, manifest: Descriptor) -> Descriptor | None:
        """Store a manifest of docker's once more, in OCI's types; None where it is in these already."""
        if manifest.media_type != DOCKER_MANIFEST:
            return None
        translated = in_oci_types(self._content.read(manifest.digest, MANIFEST_LIMIT))
        if translated is None:
            return None
        copy = Descriptor(media_type=OCI_MANIFEST, digest=digest_bytes(translated), size=len(translated))
        await self._content.put(copy, translated)
        return copy


def _read(order: ResolveReference) -> tuple[Reference, str]:
    """The order's reference and the platform it wants: that of this machine where it names none."""
    try:
        reference = parse(order.reference)
        machine = os.uname()
        return reference, platforms.normalise(order.platform or platforms.spell(machine.sysname, machine.machine))
    except ReferenceInvalid as exc:
        raise Permanent(str(exc), code="NAME_INVALID") from exc
    except PlatformInvalid as exc:
        raise Permanent(str(exc), code="platform.invalid") from exc


def _lost(order: RecordImage, missing: Incomplete) -> list[Event]:
    """The facts that say what is not there, where the flight believes it to be."""
    why = f"not there when {order.reference} was to be listed"
    blobs = [BlobLost(store=order.store, digest=digest, reason=why) for digest in missing.blobs]
    return [*blobs, *(LayerLost(store=order.store, chain_id=chain_id, reason=why) for chain_id in missing.chain_ids)]


def _checked(source: Source) -> Source:
    """A source as it came over the bus: it becomes part of a URL that a secret is sent to."""
    try:
        parse(f"{source.registry}/{source.repository}")
    except ReferenceInvalid as exc:
        raise Permanent(str(exc), code="NAME_INVALID") from exc
    return source

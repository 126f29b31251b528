"""What image a request is for: from the disk, for whom may have it, or from what the registry says."""

import asyncio

from pullonce.oci.reference import Reference
from pullonce.store.content import ContentStore
from schemas.events import ResolvedLayer, Source
from schemas.oci import Descriptor, Digest
from schemas.orders import RecordImage, ResolveReference
from services.fetcher.access import AccessRules
from services.fetcher.documents.asking import Asking
from services.fetcher.documents.resolve import Image, Resolver
from services.fetcher.inventory import Inventory
from services.fetcher.remote.registry import Registry
from services.fetcher.slots import Slots


class Finder:
    """Finds images for one store, and asks whether they may be given.

    Args:
        resolving: slots for requests about references, by registry.
    """

    def __init__(
        self, registry: Registry, content: ContentStore, inventory: Inventory, access: AccessRules, resolving: Slots
    ) -> None:
        self._registry = registry
        self._content = content
        self._inventory = inventory
        self._access = access
        self._resolving = resolving
        self._asking = Asking()

    async def find(self, order: ResolveReference, reference: Reference, wanted: str) -> tuple[Source, Image]:
        """Where a reference leads, and its image: what the store lists, where that is enough; else what the registry says.

        Args:
            wanted: normalised platform.

        Raises:
            Permanent, Retryable: there is no such image, or not for this credential.
        """
        self._access.check_name(order.credential)
        source = Source(registry=reference.registry, repository=reference.repository, credential=order.credential)
        resolver = Resolver(self._registry, self._content, source, wanted, self._asking, self._access.delivered)
        image = None
        if order.policy == "if-not-present":
            image = await asyncio.to_thread(self._inventory.listed, resolver, str(reference), wanted)
        if image is not None:
            if not await self._access.proved(source, image.digest):
                async with self._resolving.of(source.registry):
                    await self._access.prove(source, reference.locator)
            return source, image
        known = await self._access.known(source, reference)
        if known is not None:  # most likely all of it is there: that must not wait behind others for the network
            return source, await resolver.resolve(reference, known)
        async with self._resolving.of(source.registry):
            image = await resolver.resolve(reference)
        if resolver.named is not None:
            await self._access.learn(source, reference, resolver.named)
        return source, image

    async def restore(self, order: RecordImage, source: Source) -> None:
        """Fetch the documents of an image that was resolved before, as far as the store lost them.

        Raises:
            Permanent, Retryable: see `Registry`.
        """
        resolver = Resolver(self._registry, self._content, source, order.platform, self._asking, self._access.delivered)
        async with self._resolving.of(source.registry):
            await resolver.restore(order.manifest, order.config)

    async def check_found(self, source: Source, image: Image, layers: tuple[ResolvedLayer, ...]) -> None:
        """Where content is isolated: none of what is there was brought by others for others alone.

        Raises:
            Permanent: `content.isolated`.
        """
        if self._access.isolated and not self._access.imported(source, image.digest):
            await self._separate(source, image.manifest, image.config, self._inventory.reused(layers))

    async def check_listed(self, order: RecordImage) -> None:
        """The same of all that an image consists of, before it is listed: some of it may have come by others meanwhile."""
        source = order.source
        if self._access.isolated and source is not None and not self._access.imported(source, order.digest):
            blobs = self._inventory.content_of(order.manifest, order.chain_ids)
            await self._separate(source, order.manifest, order.config, blobs)

    async def _separate(self, source: Source, manifest: Descriptor, config: Descriptor, blobs: list[Digest]) -> None:
        brought = self._inventory.embedded_in(manifest)
        wanted = [digest for digest in (config.digest, *blobs) if digest not in brought]
        await self._access.separate(source, [manifest.digest], self._inventory.sizes(manifest, wanted))

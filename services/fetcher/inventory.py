"""What the disk holds of an image at this moment. The disk decides over the log.

What a pull is told is there must not be removed before the pull has ended: looking and noting the use are one step, under the
lock of the store.
"""

from collections.abc import Iterable
from contextlib import suppress

from pullonce.errors import Permanent, PullonceError, Retryable
from pullonce.oci.digest import chain_ids
from pullonce.store.content import ContentStore
from pullonce.store.disk import disk_full, free_bytes
from pullonce.store.images import ImageRecord
from pullonce.store.snapshots import SnapshotMissing, Snapshots
from pullonce.store.uses import Use, Uses
from schemas.events import ResolvedLayer
from schemas.oci import ChainID, Descriptor, DiffID, Digest, Manifest
from schemas.orders import RecordImage, ResolveReference
from services.fetcher.documents.manifest import LONGEST_TYPE, MANIFEST_LIMIT, read_document
from services.fetcher.documents.resolve import Image, Resolver, embedded

_LONGEST_URL = 200


class Incomplete(PullonceError):
    """An image cannot be listed: some of what it needs is not there any more."""

    def __init__(self, blobs: list[Digest], chain_ids: list[ChainID]) -> None:
        super().__init__(f"no longer in the store: {', '.join([*blobs, *chain_ids])}")
        self.blobs = blobs
        self.chain_ids = chain_ids


class Inventory:
    """Looks at one store's blobs, snapshots and list of images."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._snapshots = Snapshots(content.root)
        self._uses = Uses(content.root)

    def listed(self, resolver: Resolver, reference: str, wanted: str) -> Image | None:
        """The image that the store lists, if all of it is there: whoever is content with it costs no request."""
        record = self._content.images.find(reference, wanted)
        if record is None:
            return None
        try:
            image = resolver.stored(record.digest, record.manifest)
        except Permanent:
            return None
        return image if all(self._content.has(layer.digest) for layer in image.layers) else None

    def take_stock(self, order: ResolveReference, image: Image) -> tuple[tuple[ResolvedLayer, ...], bool]:
        """What is there of each layer, and whether the image is listed with all its snapshots; noted as used by the flight.

        Raises:
            Retryable: manifest or config were removed since they were read; they are fetched again.
            Permanent: the disk refuses.
        """
        record = ImageRecord(
            reference=order.reference,
            platform=image.platform,
            digest=image.digest,
            manifest=image.manifest,
            image_id=image.config.digest,
            chain_ids=tuple(filter(None, _chain(image))),
        )
        with self._content.images.hold():
            self._content.images.mend()
            self._uses.note(Use(flight=order.flight, opened=order.opened, image=record))
            for document in (image.manifest, image.config):
                if not self._content.has(document.digest):  # the next attempt finds it protected by the note
                    raise Retryable(f"{document.digest} was removed while it was read", code="blob.missing", after=0.0)
            return self.layers(image), self._recorded(record)

    def layers(self, image: Image) -> tuple[ResolvedLayer, ...]:
        """The layers of an image, bottom first, and what is there of each."""
        return tuple(map(self._layer, image.layers, image.diff_ids, _chain(image)))

    def reused(self, layers: Iterable[ResolvedLayer]) -> list[Digest]:
        """Of layers that are there: their blobs, and those that their snapshots were unpacked from."""
        there = [layer.blob.digest for layer in layers if layer.fetched or layer.unpacked]
        return [*there, *self._unpacked_from(layer.chain_id for layer in layers if layer.unpacked)]

    def content_of(self, manifest: Descriptor, chain_ids: Iterable[ChainID]) -> list[Digest]:
        """The layers of an image, and the blobs that its snapshots were unpacked from.

        Raises:
            Permanent: `blob.missing`.
        """
        return [*(each.digest for each in self._descriptors(manifest)[1:]), *self._unpacked_from(chain_ids)]

    def embedded_in(self, manifest: Descriptor) -> set[Digest]:
        """What a manifest itself holds, and who may have it so has as well.

        Raises:
            Permanent: `blob.missing`.
        """
        return {each.digest for each in self._descriptors(manifest) if embedded(each) is not None}

    def sizes(self, manifest: Descriptor, blobs: Iterable[Digest]) -> dict[Digest, int | None]:
        """How many bytes blobs have: by the disk, else by a manifest; None where neither knows.

        Raises:
            Permanent: `blob.missing`; the manifest is not there.
        """
        told = {each.digest: each.size for each in self._descriptors(manifest)}
        found: dict[Digest, int | None] = {}
        for digest in blobs:
            try:
                found[digest] = self._content.size(digest)
            except Permanent:
                found[digest] = told.get(digest)
        return found

    def _descriptors(self, manifest: Descriptor) -> list[Descriptor]:
        """Config and layers."""
        content = self._content.read(manifest.digest, MANIFEST_LIMIT)
        _, document = read_document(content, manifest.media_type, manifest.digest)
        return [document.config, *document.layers] if isinstance(document, Manifest) else []

    def _unpacked_from(self, chain_ids: Iterable[ChainID]) -> list[Digest]:
        found = []
        for chain_id in chain_ids:
            with suppress(SnapshotMissing):
                found.append(self._snapshots.get(chain_id).blob)
        return found

    def check_room(self, layers: tuple[ResolvedLayer, ...]) -> None:
        """What is missing of an image has room, beside what is reserved for blobs that are being fetched.

        What was ordered and not begun reserves nothing yet; a blob that finds no room then is refused by itself.

        Raises:
            Permanent: `disk.full`.
        """
        missing = {layer.blob.digest: layer.blob.size for layer in layers if not layer.fetched}
        needed = sum(max(0, size - self._content.reserved(digest)) for digest, size in missing.items())
        if needed > free_bytes(self._content.root):
            raise disk_full(self._content.root, needed)

    def check_complete(self, order: RecordImage, listed: Descriptor | None) -> None:
        """The list names nothing that is not there: something may have been lost since the flight saw it settle.

        Args:
            listed: the translated manifest, where there is one.

        Raises:
            Incomplete: layers are missing; they can be had again.
            Permanent: `blob.missing`; without manifest and config nobody knows what to get.
            Retryable: the translation was removed before anything named it.
        """
        manifest = self._content.read(order.manifest.digest, MANIFEST_LIMIT)
        if not self._content.has(order.config.digest):
            why = f"{order.config.digest} is not in the store any more, so {order.reference} cannot be listed; pull it again"
            raise Permanent(why, code="blob.missing", concerns="key")
        if listed is not None and not self._content.has(listed.digest):
            raise Retryable(f"{listed.digest} was removed before it was listed", code="blob.missing", after=0.0)
        _, document = read_document(manifest, order.manifest.media_type, order.reference)
        layers = document.layers if isinstance(document, Manifest) else ()
        blobs = [layer.digest for layer in layers if not self._content.has(layer.digest)]
        chain = [chain_id for chain_id in order.chain_ids if not self._snapshots.has(chain_id)]
        if blobs or chain:
            raise Incomplete(blobs, chain)

    def _recorded(self, image: ImageRecord) -> bool:
        """Whether the store lists exactly this image, with its snapshots, under this reference."""
        return any(
            record.platform == image.platform
            and (record.digest, record.manifest.digest, record.chain_ids)
            == (image.digest, image.manifest.digest, image.chain_ids)
            for record in self._content.images.named(image.reference)
        )

    def _layer(self, blob: Descriptor, diff_id: DiffID, chain_id: ChainID) -> ResolvedLayer:
        return ResolvedLayer(
            blob=_told(blob),
            diff_id=diff_id,
            chain_id=chain_id,
            fetched=self._content.has(blob.digest),
            unpacked=bool(chain_id) and self._snapshots.has(chain_id),
        )


def _chain(image: Image) -> list[ChainID]:
    """The ChainID of each layer, bottom first; empty ones for what is not unpacked."""
    chain = iter(chain_ids(filter(None, image.diff_ids)))
    return [next(chain) if diff_id else ChainID("") for diff_id in image.diff_ids]


def _told(blob: Descriptor) -> Descriptor:
    """What events say of a blob: short, whatever a manifest holds, since the disk has the manifest. Of the addresses at which a
    layer is offered, the first is enough for people, if it is one that they could use."""
    urls = tuple(url for url in blob.urls[:1] if len(url) <= _LONGEST_URL)
    return Descriptor(media_type=blob.media_type[:LONGEST_TYPE], digest=blob.digest, size=blob.size, urls=urls)

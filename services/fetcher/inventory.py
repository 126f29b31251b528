"""What the disk holds of an image at this moment. The disk decides over the log."""

from pullonce.content import ContentStore
from pullonce.disk import disk_full, free_bytes
from pullonce.errors import Permanent
from pullonce.oci.digest import chain_ids
from pullonce.snapshots import Snapshots
from schemas.events import ResolvedLayer
from schemas.oci import ChainID, Descriptor, DiffID, Manifest
from schemas.orders import RecordImage
from services.fetcher.manifest import MANIFEST_LIMIT, read_document
from services.fetcher.resolve import Image, Resolver


class Inventory:
    """Looks at one store's blobs, snapshots and list of images."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._snapshots = Snapshots(content.root)

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

    def layers(self, image: Image) -> tuple[ResolvedLayer, ...]:
        """The layers of an image, bottom first, and what is there of each."""
        chain = chain_ids(image.diff_ids) if all(image.diff_ids) else [ChainID("")] * len(image.layers)
        return tuple(map(self._layer, image.layers, image.diff_ids, chain))

    def recorded(self, reference: str, image: Image, layers: tuple[ResolvedLayer, ...]) -> bool:
        """Whether the store lists exactly this image, with its snapshots, under this reference."""
        chain = tuple(layer.chain_id for layer in layers if layer.chain_id)
        return any(
            record.platform == image.platform
            and (record.digest, record.manifest.digest, record.chain_ids) == (image.digest, image.manifest.digest, chain)
            for record in self._content.images.named(reference)
        )

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

    def check_complete(self, order: RecordImage) -> None:
        """The list names nothing that is not there: a blob may have been lost since the flight saw it settle.

        Raises:
            Permanent: `blob.missing`.
        """
        manifest = self._content.read(order.manifest.digest, MANIFEST_LIMIT)
        _, document = read_document(manifest, order.manifest.media_type, order.reference)
        unpacked = bool(order.chain_ids) and all(map(self._snapshots.has, order.chain_ids))
        layers = document.layers if isinstance(document, Manifest) and not unpacked else ()
        for blob in (order.config, *layers):
            if not self._content.has(blob.digest):
                why = f"{blob.digest} is not in the store any more, so {order.reference} cannot be listed"
                raise Permanent(why, code="blob.missing", concerns="key")

    def _layer(self, blob: Descriptor, diff_id: DiffID, chain_id: ChainID) -> ResolvedLayer:
        return ResolvedLayer(
            blob=Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size, urls=blob.urls),
            diff_id=diff_id,
            chain_id=chain_id,
            fetched=self._content.has(blob.digest),
            unpacked=bool(chain_id) and self._snapshots.has(chain_id),
        )

"""What an image needs of a store: its documents, its layers' blobs, its snapshots."""

from collections.abc import Iterable, Iterator

import msgspec

from pullonce.care.things import Thing, blob, layer
from pullonce.errors import Permanent, PullonceError
from pullonce.oci import go_json
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from schemas.oci import Descriptor, Digest

_LIMIT = 16 << 20
"""Bytes of the longest document that a fetcher stores."""


_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


class NeedsUnknown(PullonceError):
    """What an image needs cannot be read from the store, so nothing may be removed that it might need."""


class _Document(msgspec.Struct):
    """The parts of a manifest or an index that name other blobs."""

    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()


class Needs:
    """Reads what images need; a document is read once, since its digest is its name."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._documents: dict[str, _Document] = {}

    def of(self, image: ImageRecord) -> set[Thing]:
        """Everything that must be there for an image, and the indexes by which it was found.

        Raises:
            NeedsUnknown: its manifest cannot be read.
        """
        if self._document(image.manifest.digest) is None:
            raise NeedsUnknown(
                f"the manifest {image.manifest.digest} of {image.reference} cannot be read: run `pullonce verify --repair`"
            )
        return self.of_pull(image)

    def of_pull(self, image: ImageRecord) -> set[Thing]:
        """The same for an image that is being pulled. One whose manifest is not there has not looked at its layers yet."""
        manifest = self._document(image.manifest.digest)
        listed = [image.listed.digest] if image.listed else []
        documents = {image.manifest.digest, image.image_id, *listed, *self._indexes(image.digest)}
        blobs = [descriptor.digest for descriptor in manifest.layers] if manifest else []
        return {*map(blob, documents), *map(blob, blobs), *map(layer, image.chain_ids)}

    def of_foreign(self, entry: Descriptor) -> set[Thing]:
        """Everything that an entry which others wrote may need, as far as it is there to be read."""
        found, documents = {blob(entry.digest)}, [entry.digest]
        while documents:
            document = self._document(documents.pop())
            if document is not None:
                config = [document.config] if document.config else []
                found |= {blob(inner.digest) for inner in (*config, *document.layers, *document.manifests)}
                documents += [inner.digest for inner in document.manifests]
        return found

    def of_all(self, images: Iterable[ImageRecord], pulls: Iterable[ImageRecord], foreign: Iterable[Descriptor]) -> set[Thing]:
        """What listed images, images that are being pulled, and entries of others need together."""
        return set().union(*map(self.of, images), *map(self.of_pull, pulls), *map(self.of_foreign, foreign))

    def _indexes(self, digest: Digest) -> Iterator[Digest]:
        """What the reference named, and the indexes below it that are there."""
        document = self._document(digest)
        if document is None:
            return
        yield digest
        for entry in document.manifests:
            if entry.media_type in _INDEXES:
                yield from self._indexes(entry.digest)

    def _document(self, digest: str) -> _Document | None:
        """None for what is not there, and for what is no document."""
        if digest not in self._documents:
            try:
                self._documents[digest] = go_json.decode(self._content.read(Digest(digest), _LIMIT), _Document)
            except (Permanent, go_json.NoDocument):
                return None
        return self._documents[digest]

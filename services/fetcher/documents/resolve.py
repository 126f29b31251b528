"""What a reference names: from a tag through indexes to the manifest and config of one platform, stored on the way.

What the store holds is read from the disk and never asked for again; what the registry must say each time is only what a tag
names now, and whether the credential may know.
"""

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from pullonce.errors import Permanent, Retryable
from pullonce.oci import platform as platforms
from pullonce.oci.digest import digest_bytes, matches
from pullonce.oci.reference import Reference
from pullonce.store.content import ContentStore
from pullonce.worker.stopwatch import spent_on
from schemas.events import Source
from schemas.oci import Descriptor, DiffID, Digest, Index, Manifest
from services.fetcher.documents.asking import Asking
from services.fetcher.documents.manifest import (
    CONFIG_LIMIT,
    LONGEST_TYPE,
    MANIFEST_LIMIT,
    check_descriptor,
    is_artifact,
    read_document,
    read_layers,
)
from services.fetcher.remote.answers import unforeseen
from services.fetcher.remote.judgement import Delivered
from services.fetcher.remote.registry import Registry

log = logging.getLogger(__name__)

_UNKEPT = ("MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN", "MANIFEST_INVALID", "digest.mismatch", "size.mismatch")
_DEEPEST = 3
"""Indexes within indexes."""


@dataclass(frozen=True, slots=True)
class Image:
    """One platform's image, its manifest and config in the content store."""

    digest: Digest
    """What the reference names: an index, or the manifest itself."""
    platform: str
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[DiffID, ...]
    """One for each layer; empty ones where it is an artifact."""
    artifact: bool = False
    """Its manifest says that it is no image."""


class Resolver:
    """Finds the image of one reference for one platform.

    Args:
        source: where the reference points, and with which credential.
        wanted: normalised platform.
        asking: what others ask for at this moment.
        delivered: told what a registry has sent, once it is verified.

    Attributes:
        named: what the reference names, once that is known.
    """

    def __init__(
        self, registry: Registry, content: ContentStore, source: Source, wanted: str, asking: Asking, delivered: Delivered
    ) -> None:
        self._registry = registry
        self._content = content
        self._source = source
        self._wanted = wanted
        self._asking = asking
        self._delivered = delivered
        self._available: list[str] = []
        self.named: Descriptor | None = None

    async def resolve(self, reference: Reference, known: Descriptor | None = None) -> Image:
        """Ask the registry what the reference names now, and fetch of it what the store lacks.

        Args:
            known: what the registry said a moment ago, which is believed.

        Raises:
            Permanent, Retryable: see `Registry`; `platform.unavailable`; `MANIFEST_INVALID`.
        """
        try:
            top, content_type, document = await (self._believed(known) if known else self._top(reference))
            self.named = Descriptor(media_type=content_type, digest=top.digest, size=len(document))
            found = await self._choose(top, content_type, document, depth=0)
        except (Permanent, Retryable):
            raise
        except Exception as exc:  # whatever it is, what was sent led to it
            raise unforeseen(str(reference), exc) from exc
        if found is None:
            raise platforms.unavailable(self._wanted, self._available)
        return found

    def stored(self, digest: Digest, manifest: Descriptor) -> Image:
        """An image out of the store alone. Raises Permanent (`blob.missing`, `blob.damaged`) where it is not all there."""
        content = self._content.read(manifest.digest, MANIFEST_LIMIT)
        media_type, document = read_document(content, manifest.media_type, manifest.digest)
        if isinstance(document, Index):
            raise Permanent(f"{manifest.digest} is an index", code="MANIFEST_INVALID")
        config = self._content.read(document.config.digest, CONFIG_LIMIT)
        described = Descriptor(media_type=media_type, digest=manifest.digest, size=len(content))
        return self._image(digest, described, document, config)

    async def restore(self, manifest: Descriptor, config: Descriptor) -> None:
        """Fetch the documents of an image that was resolved before, as far as the store lost them or holds them damaged.

        Raises:
            Permanent, Retryable: see `Registry`.
        """
        await self._document(manifest)
        await self._config(config)

    async def _believed(self, known: Descriptor) -> tuple[Descriptor, str, bytes]:
        return known, known.media_type, await self._document(known)

    async def _top(self, reference: Reference) -> tuple[Descriptor, str, bytes]:
        """What the reference names. A digest that is not there needs no question about what it is: it is fetched at once."""
        locator = reference.locator
        if not reference.digest or self._content.has(Digest(reference.digest)):
            with spent_on("head"):
                descriptor = await self._registry.head(self._source, locator)
            if descriptor is not None and (content := await self._promised(descriptor)) is not None:
                return descriptor, descriptor.media_type, content
        with spent_on("manifest"):
            content_type, content = await self._registry.manifest(self._source, locator)
        digest = Digest(reference.digest) or digest_bytes(content)
        descriptor = Descriptor(media_type=content_type, digest=digest, size=len(content))
        await self._content.put(descriptor, content)
        await self._delivered(self._source, descriptor.digest)
        return descriptor, content_type, content

    async def _promised(self, descriptor: Descriptor) -> bytes | None:
        """What a HEAD has promised; None where it is not there, or something else is: the tag has moved since, or HEAD lies."""
        try:
            return await self._document(descriptor)
        except Permanent as exc:
            if exc.code not in _UNKEPT:
                raise
            log.warning("resolved once more, since a HEAD promised something else: %s", exc)
            return None

    async def _choose(self, top: Descriptor, content_type: str, content: bytes, *, depth: int) -> Image | None:
        """Follow indexes down to a manifest that fits; None where this branch has none."""
        what = f"{self._source.registry}/{self._source.repository}@{top.digest}"
        media_type, document = read_document(content, content_type, what)
        if isinstance(document, Manifest):
            config = await self._config(document.config)
            await self._keep_embedded(document.layers)
            described = Descriptor(media_type=media_type, digest=top.digest, size=len(content))
            return self._image(top.digest, described, document, config)
        if depth == _DEEPEST:
            raise Permanent(f"{what} is an index in an index, more than {_DEEPEST} deep", code="MANIFEST_INVALID")
        entries = platforms.images(document.manifests)
        self._available += filter(None, (platforms.platform_of(entry.platform) for entry in entries))
        for entry in platforms.choose(entries, self._wanted):
            check_descriptor(entry, what)
            below = await self._document(entry)
            found = await self._choose(entry, entry.media_type, below, depth=depth + 1)
            if found is None:
                continue
            # Only an entry that says nothing of its platform may turn out to be for another one.
            stated = platforms.platform_of(entry.platform)
            if not stated and found.artifact:
                continue  # an SBOM, a signature: it is for no platform
            if stated or platforms.serves(found.platform, self._wanted):
                return replace(found, digest=top.digest, platform=stated or found.platform)
            self._available.append(found.platform)
        return None

    def _image(self, digest: Digest, manifest: Descriptor, document: Manifest, config: bytes) -> Image:
        image, diff_ids = read_layers(document, config, manifest.digest)
        platform = platforms.platform_of(image) or self._wanted
        kept = document.config
        plain = Descriptor(media_type=kept.media_type[:LONGEST_TYPE], digest=kept.digest, size=len(config))
        return Image(digest, platform, manifest, plain, document.layers, tuple(diff_ids), is_artifact(document))

    async def _keep_embedded(self, layers: tuple[Descriptor, ...]) -> None:
        """Store what the manifest itself holds of its layers: a registry need not have it."""
        for layer in layers:
            content = embedded(layer)
            if content is not None and not self._content.has(layer.digest):
                await self._content.put(layer, content)

    async def _document(self, descriptor: Descriptor) -> bytes:
        """A manifest or index by digest."""

        async def ask() -> bytes:
            with spent_on("manifest"):
                return (await self._registry.manifest(self._source, descriptor.digest))[1]

        return await self._small(descriptor, MANIFEST_LIMIT, ask)

    async def _config(self, descriptor: Descriptor) -> bytes:
        async def ask() -> bytes:
            with spent_on("config"):
                content = await self._whole(descriptor, anew=False)
                return content if matches(content, descriptor.digest) else await self._whole(descriptor, anew=True)

        return await self._small(descriptor, CONFIG_LIMIT, ask)

    async def _whole(self, descriptor: Descriptor, *, anew: bool) -> bytes:
        """A small blob, and a little of what is longer than it says."""
        parts, size = list[bytes](), 0
        async with aclosing(self._registry.blob(self._source, descriptor, anew=anew)) as body:
            async for chunk in body:
                parts.append(chunk)
                size += len(chunk)
                if size > descriptor.size:
                    break
        return b"".join(parts)

    async def _small(self, descriptor: Descriptor, limit: int, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        """A document out of the store, or asked for and stored. Of several resolvers that miss the same one, one asks."""
        if descriptor.size > limit:
            raise Permanent(f"the document {descriptor.digest} is longer than {limit >> 20} MiB", code="MANIFEST_INVALID")

        held = embedded(descriptor)

        async def store(patience: float) -> bytes:
            try:
                async with self._content.ingest(descriptor, wait=patience) as ingest:
                    if ingest.present:
                        return self._content.read(descriptor.digest, limit)
                    content = held or await ask()
                    await ingest.restart()
                    await ingest.write(content)
                    await ingest.commit()
            except TimeoutError:
                content = held or await ask()
                await self._content.put(descriptor, content)
            if held is None:
                await self._delivered(self._source, descriptor.digest)
            return content

        return await self._asking.once(descriptor.digest, self._source, lambda: self._kept(descriptor, limit), store)

    def _kept(self, descriptor: Descriptor, limit: int) -> bytes | None:
        """What the store holds; what it holds damaged is removed, so that it is fetched again."""
        if not self._content.has(descriptor.digest):
            return None
        try:
            return self._content.read(descriptor.digest, limit)
        except Permanent as exc:
            if exc.code == "blob.damaged":
                self._content.discard(descriptor.digest)
            elif exc.code != "blob.missing":
                raise
            return None


def embedded(descriptor: Descriptor) -> bytes | None:
    """The content that the publisher put into the descriptor itself, if it is what the digest says."""
    if not descriptor.data:
        return None
    try:
        content = base64.b64decode(descriptor.data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if len(content) == descriptor.size and matches(content, descriptor.digest) else None

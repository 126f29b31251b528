"""What a store has of an image that is to be shown: its documents, and its layers as containers/storage names them."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from pullonce.errors import Permanent, PullonceError
from pullonce.expose.records import Image, Layer, created, documents, stack
from pullonce.expose.shown import Shown, needed_documents
from pullonce.oci import go_json
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from pullonce.store.layout import short_name
from pullonce.store.snapshots import Snapshot, SnapshotMissing, Snapshots
from schemas.oci import ChainID, Descriptor, Digest, Manifest

_LIMIT = 16 << 20
"""Bytes of the longest document that a fetcher stores."""


class NotExposable(PullonceError):
    """The image cannot be shown; the message says why and what to do."""


class Reader:
    """Reads images of one store, each once.

    Args:
        as_root: root's podman is to read them.
    """

    def __init__(self, content: ContentStore, *, as_root: bool) -> None:
        self._content = content
        self._snapshots = Snapshots(content.root)
        self._as_root = as_root
        self._stacks: dict[tuple[Digest, tuple[ChainID, ...]], list[Layer]] = {}

    def layers(self, image: ImageRecord) -> list[Layer]:
        """The layers of an image, bottom first.

        Raises:
            NotExposable: not everything is there that showing it takes.
        """
        key = image.manifest.digest, image.chain_ids
        if key not in self._stacks:
            name = f"{image.reference} ({image.platform})"
            manifest = self._manifest(image, name)
            if not image.chain_ids:
                raise NotExposable(f"{name} {_why_not_unpacked(manifest)}")
            if lost := [each for each in needed_documents(image) if not self._content.has(each)]:
                raise NotExposable(f"{name} lacks the document {lost[0]}; `pullonce verify --repair` fetches it")
            snapshots = [self._snapshot(chain_id, name) for chain_id in image.chain_ids]
            self._stacks[key] = _stack(image, name, snapshots, manifest.layers)
        return self._stacks[key]

    def image(self, group: Sequence[Shown], named: Mapping[tuple[str, str], str]) -> Image:
        """What is shown of one config: several references, and several manifests, may stand for it."""
        ordered = [each.image for each in sorted(group, key=lambda each: (each.state != "shown", each.key))]
        first = ordered[0]
        config = self._read(first.image_id)
        said = go_json.parse(config)
        return Image(
            id=first.image_id.partition(":")[2],
            names=tuple(dict.fromkeys(named[each.key] for each in group if each.state == "shown")),
            digest=first.manifest.digest,
            top=self.layers(first)[-1].id,
            documents=documents(
                list(self._each(image.manifest.digest for image in ordered)),
                self._each(image.digest for image in ordered if image.digest != image.manifest.digest),
                (first.image_id, config),
            ),
            created=created(go_json.fields(said).get("created") if isinstance(said, dict) else None),
        )

    def _each(self, digests: Iterable[Digest]) -> Iterable[bytes]:
        return map(self._read, dict.fromkeys(digests))

    def _read(self, digest: Digest) -> bytes:
        return self._content.read(digest, _LIMIT)

    def _manifest(self, image: ImageRecord, name: str) -> Manifest:
        try:
            return go_json.decode(self._read(image.manifest.digest), Manifest)
        except (Permanent, go_json.NoDocument) as exc:
            raise NotExposable(f"the manifest of {name} cannot be read: {exc}; `pullonce verify --repair` mends it") from exc

    def _snapshot(self, chain_id: ChainID, name: str) -> Snapshot:
        try:
            found = self._snapshots.get(chain_id)
        except (SnapshotMissing, msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise NotExposable(f"{name} lacks a layer: {exc}") from exc
        if self._as_root and found.userxattr:
            raise NotExposable(
                f"{name} was unpacked by a user who is not root: directories that hide others are marked as only that user's "
                "podman reads it; expose it as that user, or pull it into a store of root's"
            )
        return found


def listed(content: ContentStore) -> Callable[[ImageRecord], bool]:
    """Tells whether an image is what the store lists under its reference and for its platform."""

    def is_listed(image: ImageRecord) -> bool:
        there = content.images.named(image.reference)
        return any((each.platform, each.manifest.digest) == (image.platform, image.manifest.digest) for each in there)

    return is_listed


def _stack(image: ImageRecord, name: str, snapshots: Sequence[Snapshot], blobs: Sequence[Descriptor]) -> list[Layer]:
    if len(blobs) != len(snapshots):
        raise NotExposable(f"{name} has {len(blobs)} layers, and {len(snapshots)} of them are unpacked; pull it again")
    return stack(image.chain_ids, [each.diff_id for each in snapshots], blobs, short_name)


def _why_not_unpacked(manifest: Manifest) -> str:
    if "image" not in manifest.config.media_type:
        return f"is no container image but an artifact ({manifest.config.media_type}): podman cannot run it"
    if not manifest.layers:
        return "has no layers: there is nothing to show"
    return "is not unpacked; pull it without --no-unpack"

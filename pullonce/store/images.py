"""The images of a store: `index.json` of its OCI layout, read and written.

Source: OCI image-spec 1.1, image-layout. An image is listed once for each reference and platform. Its name for other tools, the
annotation `org.opencontainers.image.ref.name`, is the normalised reference; further platforms of a reference have theirs
appended (`docker.io/library/redis:latest+linux-arm64`), since umoci refuses a name that stands for two. Both
`skopeo copy oci:<root>:<name>` and `umoci unpack --image <root>:<name>` take such names, ports, tags and digests included. What
the spec has no place for lies in annotations of our own:

    dev.pullonce.reference   the normalised reference
    dev.pullonce.digest      what the reference named: an index, or the manifest itself
    dev.pullonce.image-id    digest of the config
    dev.pullonce.manifest    type, digest and size of the manifest as the registry has it, where it is in docker's types:
                             skopeo and umoci look only at OCI's, so the entry names a translated copy
    dev.pullonce.platform    the chosen platform, as `os/architecture[/variant]`
    dev.pullonce.chain-ids   the snapshots, bottom first, separated by spaces; absent where nothing was unpacked

Entries that others wrote are kept as they are.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from pullonce.oci import platform as platforms
from pullonce.store.disk import disk_errors, locked, replace_file
from pullonce.store.layout import Layout
from schemas.oci import ChainID, Descriptor, Digest

REF_NAME = "org.opencontainers.image.ref.name"
_REFERENCE = "dev.pullonce.reference"
_DIGEST = "dev.pullonce.digest"
_IMAGE_ID = "dev.pullonce.image-id"
_MANIFEST = "dev.pullonce.manifest"
_PLATFORM = "dev.pullonce.platform"
_CHAIN_IDS = "dev.pullonce.chain-ids"

EMPTY_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}\n'


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One listed image: everything it needs was on disk when it was listed."""

    reference: str
    """Normalised."""
    platform: str
    """The chosen one, as `os/architecture[/variant]`."""
    digest: Digest
    """What the reference named: an index, or the manifest itself."""
    manifest: Descriptor
    image_id: Digest
    listed: Descriptor | None = None
    """The manifest in OCI's types, for other tools, where `manifest` is in docker's."""
    chain_ids: tuple[ChainID, ...] = ()
    """The snapshots, bottom first; empty where nothing was unpacked."""


class Images:
    """The list of images in one store. Safe for several processes: writers hold a lock, readers see whole files."""

    def __init__(self, root: Path, *, sync: bool = True) -> None:
        self._path = Layout(root).index
        # The lock lies on a file that is never replaced: index.json itself changes its inode at every write.
        self._lock = Layout(root).store
        self._sync = sync

    def all(self) -> list[ImageRecord]:
        """Every image that pullonce listed, oldest first. Empty where there is no store."""
        try:
            document = msgspec.json.decode(self._path.read_bytes())
        except FileNotFoundError:
            return []
        return [record for entry in document.get("manifests", ()) if (record := _record_of(entry))]

    def named(self, reference: str) -> list[ImageRecord]:
        """The images listed under a normalised reference, one for each platform."""
        return [record for record in self.all() if record.reference == reference]

    def find(self, reference: str, wanted: str) -> ImageRecord | None:
        """The listed image that serves a wish for a platform best; None where none does. Both are normalised."""
        order = platforms.preferences(wanted)
        fitting = [record for record in self.named(reference) if platforms.serves(record.platform, wanted)]
        return min(fitting, key=lambda record: order.index(record.platform), default=None)

    def foreign(self) -> list[Descriptor]:
        """What the entries that others wrote name."""
        try:
            document = msgspec.json.decode(self._path.read_bytes())
        except FileNotFoundError:
            return []
        return [_listed(entry) for entry in document.get("manifests", ()) if _record_of(entry) is None]

    def hold(self) -> AbstractContextManager[None]:
        """The lock of the store: what is listed, used and there stays as it is seen, for as long as the block lasts."""
        return locked(self._lock)

    def remove(self, gone: Collection[ImageRecord]) -> None:
        """Take images off the list; what they need stays on the disk. Call it while holding the lock.

        Raises:
            Permanent: the disk refuses.
        """
        with disk_errors(self._path):
            document = msgspec.json.decode(self._path.read_bytes())
            before = document.get("manifests", [])
            document["manifests"] = [entry for entry in before if not any(_is(entry, record) for record in gone)]
            if document["manifests"] != before:
                self._write(document)

    def record(self, record: ImageRecord, check: Callable[[], None] = lambda: None) -> None:
        """List an image, in place of what was listed under the same reference and platform. Repetition changes nothing.

        A record without snapshots keeps those that are listed for the same manifest: a pull that unpacked nothing takes
        nothing away.

        Args:
            check: called under the lock; raises where something that the image needs is not there.

        Raises:
            Permanent: the disk refuses.
        """
        with disk_errors(self._path), self.hold():
            check()
            document = msgspec.json.decode(self._path.read_bytes())
            before = document.get("manifests", [])
            replaced = [entry for entry in before if _is(entry, record)]
            for known in filter(None, map(_record_of, replaced)):
                if not record.chain_ids and known.manifest.digest == record.manifest.digest:
                    record = msgspec.structs.replace(record, chain_ids=known.chain_ids)
            entry = _entry_of(record, _name(record, replaced, before))
            if replaced == [entry]:
                return
            document["manifests"] = [other for other in before if other not in replaced] + [entry]
            self._write(document)

    def _write(self, document: dict[str, Any]) -> None:
        replace_file(self._path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n", sync=self._sync)


def _is(entry: dict[str, Any], record: ImageRecord) -> bool:
    notes = entry.get("annotations") or {}
    return notes.get(_REFERENCE) == record.reference and notes.get(_PLATFORM) == record.platform


def _name(record: ImageRecord, replaced: list[dict[str, Any]], before: list[dict[str, Any]]) -> str:
    """A name that no other entry has; an image keeps the one it has."""
    for entry in replaced:
        return str(entry["annotations"][REF_NAME])
    taken = {(entry.get("annotations") or {}).get(REF_NAME) for entry in before}
    return record.reference if record.reference not in taken else f"{record.reference}+{record.platform.replace('/', '-')}"


def _entry_of(record: ImageRecord, name: str) -> dict[str, Any]:
    notes = {
        REF_NAME: name,
        _REFERENCE: record.reference,
        _DIGEST: record.digest,
        _IMAGE_ID: record.image_id,
        _PLATFORM: record.platform,
    }
    if record.listed is not None:
        notes[_MANIFEST] = " ".join((record.manifest.media_type, record.manifest.digest, str(record.manifest.size)))
    if record.chain_ids:
        notes[_CHAIN_IDS] = " ".join(record.chain_ids)
    names = dict(zip(("os", "architecture", "variant"), record.platform.split("/"), strict=False))
    listed = record.listed or record.manifest
    return {
        "mediaType": listed.media_type,
        "digest": listed.digest,
        "size": listed.size,
        "platform": names,
        "annotations": notes,
    }


def _listed(entry: dict[str, Any]) -> Descriptor:
    return Descriptor(media_type=entry["mediaType"], digest=Digest(entry["digest"]), size=entry["size"])


def _record_of(entry: dict[str, Any]) -> ImageRecord | None:
    """None for an entry that somebody else wrote."""
    notes = entry.get("annotations") or {}
    if not all(key in notes for key in (REF_NAME, _REFERENCE, _DIGEST, _IMAGE_ID, _PLATFORM)):
        return None
    listed = _listed(entry)
    media_type, digest, size = (
        notes[_MANIFEST].split() if _MANIFEST in notes else (listed.media_type, listed.digest, listed.size)
    )
    return ImageRecord(
        reference=notes[_REFERENCE],
        platform=notes[_PLATFORM],
        digest=Digest(notes[_DIGEST]),
        manifest=Descriptor(media_type=media_type, digest=Digest(digest), size=int(size)),
        listed=listed if _MANIFEST in notes else None,
        image_id=Digest(notes[_IMAGE_ID]),
        chain_ids=tuple(ChainID(chain) for chain in notes.get(_CHAIN_IDS, "").split()),
    )

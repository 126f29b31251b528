"""The images of a store: `index.json` of its OCI layout, read and written.

Source: OCI image-spec 1.1, image-layout. An image is listed once for each reference and platform, under the annotation
`org.opencontainers.image.ref.name` (the normalised reference). What the spec has no place for lies in annotations of our own:

    dev.pullonce.digest      what the reference named: an index, or the manifest itself
    dev.pullonce.image-id    digest of the config
    dev.pullonce.platform    the chosen platform, as `os/architecture[/variant]`
    dev.pullonce.chain-ids   the snapshots, bottom first, separated by spaces; absent where nothing was unpacked

Entries that others wrote are kept as they are.
"""

from pathlib import Path
from typing import Any

import msgspec

from pullonce.disk import disk_errors, locked, replace_file
from pullonce.oci import platform as platforms
from schemas.oci import ChainID, Descriptor, Digest

REF_NAME = "org.opencontainers.image.ref.name"
_DIGEST = "dev.pullonce.digest"
_IMAGE_ID = "dev.pullonce.image-id"
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
    chain_ids: tuple[ChainID, ...] = ()
    """The snapshots, bottom first; empty where nothing was unpacked."""


class Images:
    """The list of images in one store. Safe for several processes: writers hold a lock, readers see whole files."""

    def __init__(self, root: Path, *, sync: bool = True) -> None:
        self._path = root / "index.json"
        # The lock lies on a file that is never replaced: index.json itself changes its inode at every write.
        self._lock = root / "store.json"
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

    def record(self, record: ImageRecord) -> None:
        """List an image, in place of what was listed under the same reference and platform. Repetition changes nothing.

        A record without snapshots keeps those that are listed for the same manifest: a pull that unpacked nothing takes
        nothing away.

        Raises:
            Permanent: the disk refuses.
        """
        with disk_errors(self._path), locked(self._lock):
            document = msgspec.json.decode(self._path.read_bytes())
            before = document.get("manifests", [])
            replaced = [entry for entry in before if _is(entry, record)]
            if not record.chain_ids and any(entry["digest"] == record.manifest.digest for entry in replaced):
                return
            entry = _entry_of(record)
            if replaced == [entry]:
                return
            document["manifests"] = [other for other in before if other not in replaced] + [entry]
            replace_file(self._path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n", sync=self._sync)


def _is(entry: dict[str, Any], record: ImageRecord) -> bool:
    notes = entry.get("annotations") or {}
    return notes.get(REF_NAME) == record.reference and notes.get(_PLATFORM) == record.platform


def _entry_of(record: ImageRecord) -> dict[str, Any]:
    notes = {
        REF_NAME: record.reference,
        _DIGEST: record.digest,
        _IMAGE_ID: record.image_id,
        _PLATFORM: record.platform,
    }
    if record.chain_ids:
        notes[_CHAIN_IDS] = " ".join(record.chain_ids)
    names = dict(zip(("os", "architecture", "variant"), record.platform.split("/"), strict=False))
    return {
        "mediaType": record.manifest.media_type,
        "digest": record.manifest.digest,
        "size": record.manifest.size,
        "platform": names,
        "annotations": notes,
    }


def _record_of(entry: dict[str, Any]) -> ImageRecord | None:
    """None for an entry that somebody else wrote."""
    notes = entry.get("annotations") or {}
    if not all(key in notes for key in (REF_NAME, _DIGEST, _IMAGE_ID, _PLATFORM)):
        return None
    return ImageRecord(
        reference=notes[REF_NAME],
        platform=notes[_PLATFORM],
        digest=Digest(notes[_DIGEST]),
        manifest=Descriptor(media_type=entry["mediaType"], digest=Digest(entry["digest"]), size=entry["size"]),
        image_id=Digest(notes[_IMAGE_ID]),
        chain_ids=tuple(ChainID(chain) for chain in notes.get(_CHAIN_IDS, "").split()),
    )

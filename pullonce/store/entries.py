"""What an entry of `index.json` says of an image, and the text of the whole list. Pure.

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

Entries that others wrote are kept as they are. We write one entry a line, so that one can be exchanged without reading the
others.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from schemas.oci import ChainID, Descriptor, Digest

REF_NAME = "org.opencontainers.image.ref.name"
_REFERENCE = "dev.pullonce.reference"
_DIGEST = "dev.pullonce.digest"
_IMAGE_ID = "dev.pullonce.image-id"
_MANIFEST = "dev.pullonce.manifest"
_PLATFORM = "dev.pullonce.platform"
_CHAIN_IDS = "dev.pullonce.chain-ids"

_HEAD = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
_TAIL = b"]}\n"
_END = b"\n" + _TAIL

EMPTY_INDEX = _HEAD + _TAIL

Entry = dict[str, Any]


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


class Damaged(ValueError):
    """A text is no list of images."""


def parsed(text: bytes) -> tuple[Entry, list[Entry]]:
    """A list of images → all that it says beside its entries, and these.

    Raises:
        Damaged: it is none.
    """
    try:
        document = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Damaged(str(exc)) from exc
    found = document.pop("manifests", None) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Damaged("it has no list of manifests")
    return document, found


Pieces = list[bytes | memoryview]
"""A text, to be written one behind the other: that of ten thousand images is ten megabytes, which are not copied about."""


def rendered(about: Entry, entries: Iterable[bytes]) -> Pieces:
    """The text of a list: what it says beside its entries, and their lines."""
    head = _HEAD
    if about:
        head = msgspec.json.encode(about)[:-1] + b',"manifests":['
    return _laid_out(head, list(entries))


def is_ours(text: bytes) -> bool:
    """Whether a text has one entry a line, as we write them."""
    return text.startswith(_HEAD + b"\n") and text.endswith(_END)


def exchanged(text: bytes, gone: Sequence[bytes], new: Sequence[bytes]) -> Pieces | None:
    """A text of ours with some lines taken out and others put behind the last; None where it is not of that form."""
    if not is_ours(text):
        return None
    begin, end = len(_HEAD) + 1, len(text) - len(_END)
    spans = []
    for each in gone:
        if (at := text.find(b"\n" + each + b",\n")) >= 0:
            spans.append((at + 1, at + len(each) + 3))
        elif text.endswith(b"\n" + each + _END):
            spans.append((end - len(each), end))
        else:
            return None
    kept: Pieces = []
    for start, stop in (*sorted(spans), (end, end)):
        if start > begin:
            kept.append(memoryview(text)[begin : start - (2 if text[start - 2 : start] == b",\n" else 0)])
        begin = max(begin, stop)
    return _laid_out(_HEAD, [*kept, *new])


def _laid_out(head: bytes, lines: Sequence[bytes | memoryview]) -> Pieces:
    """Lines between head and tail, with what stands between them."""
    between = [part for each in lines for part in (b",\n", each)][1:]
    return [head, b"\n", *between, _END] if lines else [head, _TAIL]


def line(entry: Entry) -> bytes:
    """An entry as its line says it."""
    return msgspec.json.encode(entry)


def named_in(text: bytes, name: str) -> bool:
    """Whether an entry of a text of ours has this name for other tools."""
    return msgspec.json.encode(REF_NAME) + b":" + msgspec.json.encode(name) in text


def entry_of(record: ImageRecord, name: str) -> Entry:
    """The entry of an image under a name for other tools."""
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
    listed = record.listed or record.manifest
    return {
        "mediaType": listed.media_type,
        "digest": listed.digest,
        "size": listed.size,
        "platform": platform_names(record.platform),
        "annotations": notes,
    }


def name_of(entry: Entry) -> str:
    """Its name for other tools; empty where it has none."""
    notes = entry.get("annotations")
    return str(notes.get(REF_NAME, "")) if isinstance(notes, dict) else ""


def descriptor_of(entry: Entry) -> Descriptor | None:
    """What an entry names; None where that cannot be read."""
    try:
        return msgspec.convert({"mediaType": entry["mediaType"], "digest": entry["digest"], "size": entry["size"]}, Descriptor)
    except (KeyError, msgspec.ValidationError):
        return None


def record_of(entry: Entry) -> ImageRecord | None:
    """The image of an entry; None for one that somebody else wrote, or that cannot be read."""
    notes, listed = entry.get("annotations"), descriptor_of(entry)
    ours = (REF_NAME, _REFERENCE, _DIGEST, _IMAGE_ID, _PLATFORM)
    if listed is None or not isinstance(notes, dict) or not all(isinstance(notes.get(key), str) for key in ours):
        return None
    manifest = listed
    if _MANIFEST in notes:
        told = str(notes[_MANIFEST]).split()
        if len(told) != 3 or not told[2].isdecimal():
            return None
        manifest = Descriptor(media_type=told[0], digest=Digest(told[1]), size=int(told[2]))
    return ImageRecord(
        reference=notes[_REFERENCE],
        platform=notes[_PLATFORM],
        digest=Digest(notes[_DIGEST]),
        manifest=manifest,
        listed=listed if _MANIFEST in notes else None,
        image_id=Digest(notes[_IMAGE_ID]),
        chain_ids=tuple(ChainID(chain) for chain in str(notes.get(_CHAIN_IDS, "")).split()),
    )


def platform_names(platform: str) -> dict[str, str]:
    """`os/architecture[/variant]` as an entry of an index says it."""
    return dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))

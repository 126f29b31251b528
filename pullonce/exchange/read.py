"""What an archive of images says of them: which manifests, under which names, from which of its files. Pure.

Read are what `docker save`, `podman save`, `ctr images export`, skopeo (`oci-archive:`, `docker-archive:`, `oci:`) and
`pullonce export` write. Docker's older form has no manifests: one is made of its config and its layers as they are.

Sources: OCI image-spec 1.1, image-layout; docker's image specification 1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from pullonce.errors import PullonceError, ReferenceInvalid
from pullonce.exchange.archive import IMAGE_NAME
from pullonce.oci import go_json
from pullonce.oci.digest import digest_bytes, is_digest
from pullonce.oci.platform import platform_of
from pullonce.oci.reference import parse
from pullonce.store.entries import REF_NAME
from schemas.oci import Descriptor, Digest, ImageConfig, Index, Manifest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
T = TypeVar("T")

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")

_DEEPEST = 8
"""Indexes one within another; the specification allows it, and nobody writes more than two."""

Read = Callable[[Digest], bytes | None]
"""The bytes of a small blob, out of the archive or the store; None where neither has it."""


class ArchiveInvalid(PullonceError):
    """What was given is no archive of images, or lacks a part of one."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """One image of an archive.

    Attributes:
        reference: normalised; empty where the archive has no name for it.
        platform: `os/architecture[/variant]`.
        digest: what the archive lists: an index, or the manifest itself.
        config: its digest, the image ID.
        blobs: everything that must be there, the manifest first.
    """

    reference: str
    platform: str
    digest: Digest
    manifest: Descriptor
    config: Digest
    blobs: tuple[Descriptor, ...]


class _Saved(msgspec.Struct, rename="pascal"):
    """One image in docker's `manifest.json`."""

    config: str
    layers: tuple[str, ...] = ()
    repo_tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file of docker's older form, by its name in the archive: what it holds."""

    digest: Digest
    size: int
    compression: str = ""
    """`gzip`, `zstd`, or nothing."""


def listed(index: bytes, read: Read, has: Callable[[Digest], bool]) -> list[FoundImage]:
    """The images that an `index.json` lists, for each platform of which all is there.

    Raises:
        ArchiveInvalid: it is none, or an image of it is not there for any platform.
    """
    found: list[FoundImage] = []
    entries = {(_name_of(each), each.digest): each for each in _decode(index, Index, "index.json").manifests}
    for (name, _), entry in entries.items():
        images = [_image(name, entry.digest, manifest, read) for manifest in _manifests(entry, read)]
        whole = [each for each in images if each is not None and all(has(blob.digest) for blob in each.blobs)]
        if not whole:
            raise ArchiveInvalid(f"the archive lacks a part of {name or entry.digest}: " + _lacking(entry, images, has))
        found += whole
    return found


def saved(document: bytes, files: Mapping[str, File], read: Read) -> list[tuple[FoundImage, bytes]]:
    """The images of docker's older form, each with the manifest that was made for it.

    Args:
        document: `manifest.json`.
        files: what it may name.

    Raises:
        ArchiveInvalid: it is none, or names what is not there.
    """
    found: list[tuple[FoundImage, bytes]] = []
    for image in _decode(document, tuple[_Saved, ...], "manifest.json"):
        missing = [name for name in (image.config, *image.layers) if name not in files]
        if missing:
            raise ArchiveInvalid(f"the archive lacks {', '.join(missing)}, which its manifest.json names")
        config = files[image.config]
        layers = tuple(_layer(files[name]) for name in image.layers)
        head = Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=config.size)
        manifest = msgspec.json.encode(Manifest(schema_version=2, media_type=OCI_MANIFEST, config=head, layers=layers))
        entry = Descriptor(media_type=OCI_MANIFEST, digest=digest_bytes(manifest), size=len(manifest))
        content = read(config.digest)
        platform = platform_of(_decode(content or b"", ImageConfig, image.config))
        for name in image.repo_tags or ("",):
            reference = _normal(name)
            blobs = (entry, head, *layers)
            found.append((FoundImage(reference, platform, entry.digest, entry, config.digest, blobs), manifest))
    return found


def _layer(file: File) -> Descriptor:
    suffix = f"+{file.compression}" if file.compression else ""
    return Descriptor(media_type=OCI_LAYER + suffix, digest=file.digest, size=file.size)


def _manifests(entry: Descriptor, read: Read) -> Iterable[Descriptor]:
    """The manifests at and below an entry that can be read, each once."""
    level, seen = [entry], {entry.digest}
    for _ in range(_DEEPEST):
        below: list[Descriptor] = []
        for each in level:
            if each.media_type not in _INDEXES:
                yield each
            elif content := read(each.digest):
                below += _decode(content, Index, each.digest).manifests
        fresh = {each.digest: each for each in below if each.digest not in seen}
        level, seen = list(fresh.values()), seen | fresh.keys()
        if not level:
            return
    raise ArchiveInvalid(f"{entry.digest} of the archive leads through more than {_DEEPEST} indexes, one in another")


def _image(name: str, top: Digest, entry: Descriptor, read: Read) -> FoundImage | None:
    """None where it is no image, or its documents are not there."""
    content = read(entry.digest)
    if content is None:
        return None
    manifest = _decode(content, Manifest, entry.digest)
    config = read(manifest.config.digest)
    if config is None:
        return None
    platform = platform_of(_decode(config, ImageConfig, manifest.config.digest))
    blobs = (entry, manifest.config, *manifest.layers)
    return FoundImage(name, platform, top, entry, manifest.config.digest, blobs) if platform else None


def _lacking(entry: Descriptor, images: list[FoundImage | None], has: Callable[[Digest], bool]) -> str:
    missing = [blob.digest for image in images if image is not None for blob in image.blobs if not has(blob.digest)]
    return ", ".join(missing[:3] or [entry.digest]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")


def _name_of(entry: Descriptor) -> str:
    """The name of an entry. Its `ref.name` may be a whole reference, or a tag alone, which names nothing."""
    notes = entry.annotations
    return _normal(notes.get(IMAGE_NAME, "")) or (_normal(name) if "/" in (name := notes.get(REF_NAME, "")) else "")


def _normal(name: str) -> str:
    try:
        return str(parse(name)) if name else ""
    except ReferenceInvalid:
        return ""


def _decode(content: bytes, kind: type[T], what: str) -> T:
    try:
        return go_json.decode(content, kind)
    except go_json.NoDocument as exc:
        raise ArchiveInvalid(f"{what} of the archive cannot be read: {exc}") from None


def is_blob(name: str) -> Digest | None:
    """The digest that a file of an image layout is named after; None for any other file."""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return None
    digest = f"{parts[1]}:{parts[2]}"
    return Digest(digest) if is_digest(digest) else None

"""What an archive of images holds: an OCI image layout and docker's list of images in one tar. Pure.

`oci-layout`, `index.json` and `blobs/<algorithm>/<hex>` are for containerd, podman and skopeo; `manifest.json` names the same
blobs for `docker load`. Layers stay compressed as they are: all of these tools inflate what they load.

Source: OCI image-spec 1.1, image-layout; docker's image specification 1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from pullonce.oci.reference import parse
from pullonce.store.entries import REF_NAME, platform_names
from schemas.oci import Descriptor, Manifest

INDEX = "index.json"
MARKER = "oci-layout"
LIST = "manifest.json"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'

IMAGE_NAME = "io.containerd.image.name"
"""The name under which containerd and docker list an entry."""

_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Exported:
    """One image of an archive.

    Attributes:
        reference: the normalised one.
        platform: `os/architecture[/variant]`.
        manifest: in OCI's types.
        content: what the manifest names.
    """

    reference: str
    platform: str
    manifest: Descriptor
    content: Manifest


def blob_name(digest: str) -> str:
    """Where a blob lies in the archive."""
    algorithm, _, name = digest.partition(":")
    return f"blobs/{algorithm}/{name}"


def blobs(images: Iterable[Exported]) -> list[Descriptor]:
    """Every blob of the archive once, in the order in which a reader of the stream wants them: documents, then layers."""
    images = list(images)
    found: dict[str, Descriptor] = {}
    for image in images:
        for document in (image.manifest, image.content.config):
            found.setdefault(document.digest, document)
    for image in images:
        for layer in image.content.layers:
            found.setdefault(layer.digest, layer)
    return list(found.values())


def documents(images: Iterable[Exported]) -> Iterator[tuple[str, bytes]]:
    """The files of the archive that are no blobs: name, content."""
    images = list(images)
    yield MARKER, LAYOUT
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": [_entry(image) for image in images]}
    yield INDEX, msgspec.json.encode(index)
    yield LIST, msgspec.json.encode([_for_docker(image) for image in images])


def _entry(image: Exported) -> dict[str, Any]:
    return {
        "mediaType": image.manifest.media_type,
        "digest": image.manifest.digest,
        "size": image.manifest.size,
        "platform": platform_names(image.platform),
        "annotations": {REF_NAME: image.reference, IMAGE_NAME: image.reference},
    }


def _for_docker(image: Exported) -> dict[str, Any]:
    tagged = bool(parse(image.reference).tag)
    return {
        "Config": blob_name(image.content.config.digest),
        "RepoTags": [image.reference] if tagged else None,
        "Layers": [blob_name(layer.digest) for layer in image.content.layers],
    }

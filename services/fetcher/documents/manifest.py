"""Manifests, indexes and configs: read from bytes, and refused where they are ambiguous or cannot be served. Pure.

Sources: OCI image-spec 1.1, docker's manifest v2 schema 2; CVE-2021-41190 (a document that is manifest and index at once).
"""

from typing import Any

import msgspec

from pullonce.errors import Permanent
from pullonce.oci.digest import parse_digest
from schemas.oci import DiffID, ImageConfig, Index, Manifest

MANIFEST_LIMIT = 4 << 20
"""Bytes that a manifest or an index may have (the limit that distribution-spec asks registries to keep)."""
CONFIG_LIMIT = 8 << 20
LAYER_LIMIT = 1000
"""Layers that an image may have; containers rarely have more than 127."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, "*/*"))

_INDEXES = (OCI_INDEX, DOCKER_LIST)
_MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_IMAGE_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
# distribution#1622: some registries were pushed configs and layers without a useful type.
_UNTYPED = ("application/octet-stream", "")
_LAYER_PREFIXES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")

_IN_OCI = {
    "application/vnd.docker.container.image.v1+json": "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar": "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
}


def is_index(media_type: str) -> bool:
    return media_type in _INDEXES


def read_document(content: bytes, content_type: str, what: str) -> tuple[str, Manifest | Index]:
    """Read a manifest or an index, and say its media type.

    Args:
        content_type: what the registry or the referring descriptor says it is; parameters are ignored, and so are types
            that say nothing (`application/json`).
        what: its name for people.

    Raises:
        Permanent: `MANIFEST_INVALID`, or `manifest.schema1` for docker's first format.
    """
    fields = _fields(content, what)
    told = content_type.partition(";")[0].strip().lower()
    if (
        "fsLayers" in fields
        or fields.get("schemaVersion") == 1
        or told.startswith("application/vnd.docker.distribution.manifest.v1")
    ):
        raise Permanent(
            f"{what} is in docker's schema 1, which cannot be verified; rebuild the image and push it again",
            code="manifest.schema1",
        )
    media_type = _media_type(fields, told, what)
    document: Manifest | Index
    _check_digests(fields)
    try:
        document = msgspec.convert(fields, Index) if is_index(media_type) else msgspec.convert(fields, Manifest)
    except msgspec.ValidationError as exc:
        raise _invalid(what, str(exc)) from exc
    if document.schema_version != 2:
        raise _invalid(what, f"its schemaVersion is {document.schema_version}")
    for descriptor in document.manifests if isinstance(document, Index) else (document.config, *document.layers):
        if not 0 <= descriptor.size < 1 << 63:
            raise _invalid(what, f"{descriptor.digest} has the size {descriptor.size}")
    return media_type, document


def read_layers(manifest: Manifest, config: bytes, what: str) -> tuple[ImageConfig, list[DiffID]]:
    """The image's config, and the diffID of each layer of its manifest; empty diffIDs where it is no image but an artifact.

    Raises:
        Permanent: `MANIFEST_INVALID`; they do not fit together, or there are too many layers.
    """
    if len(manifest.layers) > LAYER_LIMIT:
        raise _invalid(what, f"it has {len(manifest.layers)} layers, more than {LAYER_LIMIT}")
    nothing = [DiffID("")] * len(manifest.layers)
    if manifest.config.media_type not in (*_IMAGE_CONFIGS, *_UNTYPED):
        return ImageConfig(), nothing
    try:
        image = msgspec.json.decode(config, type=ImageConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        if manifest.config.media_type in _UNTYPED:
            return ImageConfig(), nothing
        raise _invalid(what, f"its config cannot be read: {exc}") from exc
    if not all(_is_layer(layer.media_type) for layer in manifest.layers):
        return image, nothing
    diff_ids = image.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers):
        raise _invalid(what, f"it has {len(manifest.layers)} layers, and its config names {len(diff_ids)}")
    return image, [DiffID(parse_digest(diff_id)) for diff_id in diff_ids]


def in_oci_types(content: bytes) -> bytes | None:
    """A manifest of docker's schema 2, translated to OCI's media types; None for one that needs no translation.

    The two formats differ in nothing else (image-spec, media types, compatibility matrix). Config and layers stay the same
    blobs.
    """
    fields = msgspec.json.decode(content)
    if fields.get("mediaType") != DOCKER_MANIFEST:
        return None
    fields["mediaType"] = OCI_MANIFEST
    for descriptor in (fields["config"], *fields["layers"]):
        descriptor["mediaType"] = _IN_OCI.get(descriptor["mediaType"], descriptor["mediaType"])
    return msgspec.json.encode(fields)


def _fields(content: bytes, what: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise _invalid(what, f"it is no JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise _invalid(what, "it is no JSON object")
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise _invalid(what, "it is a manifest and an index at once, so that its digest could stand for two images")
    return fields


def _media_type(fields: dict[str, Any], told: str, what: str) -> str:
    """The body's own word; it may not contradict the header, nor the fields that are there."""
    own = fields.get("mediaType") or ""
    known = (*_INDEXES, *_MANIFESTS)
    if own and told in known and own != told:
        raise _invalid(what, f"it says it is {own!r}, and the registry says {told!r}")
    media_type = own or (told if told in known else "")
    if not media_type:
        media_type = OCI_INDEX if "manifests" in fields else OCI_MANIFEST
    if media_type not in known:
        raise _invalid(what, f"its media type {str(media_type)[:100]!r} is neither a manifest nor an index")
    if is_index(media_type) != ("manifests" in fields):
        raise _invalid(what, f"it says it is {media_type!r}, and its fields say otherwise")
    return str(media_type)


def _check_digests(fields: dict[str, Any]) -> None:
    """Refuse a digest by the code that is its own, before the document is refused as a whole for its form."""
    for found in (fields.get("config"), fields.get("layers"), fields.get("manifests")):
        for descriptor in found if isinstance(found, list) else (found,):
            if isinstance(descriptor, dict) and isinstance(digest := descriptor.get("digest"), str):
                parse_digest(digest)


def _is_layer(media_type: str) -> bool:
    return media_type.startswith(_LAYER_PREFIXES) or media_type in _UNTYPED


def _invalid(what: str, why: str) -> Permanent:
    return Permanent(f"the manifest of {what} is refused: {why}", code="MANIFEST_INVALID")

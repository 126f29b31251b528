"""Manifests, indexes and configs: read from bytes, and refused where they are ambiguous or cannot be served. Pure.

They are read as Go would read them (`pullonce.oci.go_json`), since what registries hold was taken by docker and containerd.

Sources: OCI image-spec 1.1, docker's manifest v2 schema 2; CVE-2021-41190 (a document that is manifest and index at once).
"""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from pullonce.errors import Permanent
from pullonce.oci import go_json
from pullonce.oci.digest import STACK_LIMIT, parse_digest
from schemas.oci import Descriptor, DiffID, ImageConfig, Index, Manifest

MANIFEST_LIMIT = 4 << 20
"""Bytes that a manifest or an index may have (the limit that distribution-spec asks registries to keep)."""
CONFIG_LIMIT = 16 << 20
LONGEST_TYPE = 255
"""Letters of a media type that events repeat (RFC 6838 section 4.2: twice 127, and the stroke)."""
LAYER_LIMIT = 1000
"""Blobs that a manifest may name. Images rarely have more than 127."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, "*/*"))

_INDEXES = (OCI_INDEX, DOCKER_LIST)
_MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
DOCUMENTS = (*_INDEXES, *_MANIFESTS)
"""Media types of manifests and indexes."""
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

KNOWN_TYPES = frozenset(
    {
        *(*_INDEXES, *_MANIFESTS, *_IMAGE_CONFIGS, *_UNTYPED, *_IN_OCI.keys(), *_IN_OCI.values()),
        *("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.oci.empty.v1+json"),
    }
)
"""Media types that we know as they are."""


def is_index(media_type: str) -> bool:
    return media_type in _INDEXES


def kind_of(media_type: str) -> str:
    """A media type without its parameters, in lower case: neither says what it is (RFC 9110, section 8.3.1)."""
    return media_type.partition(";")[0].strip().lower()


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
    told = kind_of(content_type)
    if (
        "fslayers" in fields
        or fields.get("schemaversion") == 1
        or told.startswith("application/vnd.docker.distribution.manifest.v1")
    ):
        raise Permanent(
            f"{what} is in docker's schema 1, which cannot be verified; rebuild the image and push it again",
            code="manifest.schema1",
        )
    media_type = _media_type(fields, told, what)
    document: Manifest | Index
    try:
        document = go_json.fill(fields, Index) if is_index(media_type) else go_json.fill(fields, Manifest)
    except go_json.NoDocument as exc:
        raise _invalid(what, str(exc)) from exc
    if document.schema_version not in (0, 2):
        raise _invalid(what, f"its schemaVersion is {document.schema_version}")
    if isinstance(document, Manifest):
        if "config" not in fields:
            raise _invalid(what, "it names no config")
        for descriptor in (document.config, *document.layers):
            check_descriptor(descriptor, what)
    return media_type, document


def check_descriptor(descriptor: Descriptor, what: str) -> None:
    """Refuse what cannot be fetched. Entries of an index are checked when they are chosen: others may be of the future.

    Raises:
        Permanent: `DIGEST_INVALID`, `MANIFEST_INVALID`.
    """
    parse_digest(descriptor.digest)
    if descriptor.size < 0:
        raise _invalid(what, f"{descriptor.digest} has the size {descriptor.size}")


def is_artifact(manifest: Manifest) -> bool:
    """Whether a manifest says itself that it is no image: an SBOM, a chart, a signature."""
    return kind_of(manifest.config.media_type) not in (*_IMAGE_CONFIGS, *_UNTYPED)


def check_stack(diff_ids: Sequence[DiffID], what: str) -> None:
    """Refuse an image that could be unpacked and never be mounted.

    Raises:
        Permanent: `image.layers`.
    """
    layers = sum(map(bool, diff_ids))
    if layers > STACK_LIMIT:
        why = f"it has {layers} layers, and the kernel mounts {STACK_LIMIT} on each other at most"
        raise Permanent(f"{what} cannot be mounted: {why}; squash it, or pull it without unpacking", code="image.layers")


def read_layers(manifest: Manifest, config: bytes, what: str) -> tuple[ImageConfig, list[DiffID]]:
    """The image's config, and the diffID of each layer of its manifest; empty diffIDs where it is no image but an artifact.

    What stands among the layers and is none by its media type is fetched and not unpacked, as containerd has it: the config
    then names one diffID for each of the others. Blobs of no type may be either.

    Raises:
        Permanent: `MANIFEST_INVALID`; they do not fit together, or there are too many layers.
    """
    if len(manifest.layers) > LAYER_LIMIT:
        raise _invalid(what, f"it has {len(manifest.layers)} layers, more than {LAYER_LIMIT}")
    nothing = [DiffID("")] * len(manifest.layers)
    if is_artifact(manifest):
        return ImageConfig(), nothing
    try:
        image = go_json.decode(config, ImageConfig)
    except go_json.NoDocument as exc:
        if manifest.config.media_type in _UNTYPED:
            return ImageConfig(), nothing
        raise _invalid(what, f"its config cannot be read: {exc}") from exc
    kinds = [kind_of(layer.media_type) for layer in manifest.layers]
    layers = [number for number, kind in enumerate(kinds) if kind.startswith(_LAYER_PREFIXES) or kind in _UNTYPED]
    named = [number for number in layers if kinds[number] not in _UNTYPED]
    diff_ids = [DiffID(parse_digest(diff_id)) for diff_id in image.rootfs.diff_ids] if layers else []
    if len(diff_ids) not in (len(layers), len(named)):
        raise _invalid(what, f"it has {len(layers)} layers, and its config names {len(diff_ids)}")
    for number, diff_id in zip(layers if len(diff_ids) == len(layers) else named, diff_ids, strict=True):
        nothing[number] = diff_id
    return image, nothing


def in_oci_types(content: bytes) -> bytes | None:
    """A manifest of docker's schema 2, translated to OCI's media types; None for one that needs no translation.

    The two formats differ in nothing else (image-spec, media types, compatibility matrix). Config and layers stay the same
    blobs.
    """
    fields = go_json.fields(go_json.parse(content))
    if kind_of(str(fields.get("mediatype") or "")) != DOCKER_MANIFEST:
        return None
    document = go_json.fill(fields, Manifest)
    inner = [_in_oci(each) for each in (fields["config"], *(fields.get("layers") or ()))]
    translated = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": inner[0], "layers": inner[1:]}
    return msgspec.json.encode(translated | ({"annotations": document.annotations} if document.annotations else {}))


def _in_oci(descriptor: dict[str, Any]) -> dict[str, Any]:
    """One descriptor, its names in their one spelling and its type in OCI's word; what is `null` is left out."""
    found = go_json.fill(descriptor, Descriptor)
    renamed = msgspec.structs.replace(found, media_type=_IN_OCI.get(kind_of(found.media_type), found.media_type))
    return cast(dict[str, Any], msgspec.to_builtins(renamed))


def _fields(content: bytes, what: str) -> dict[str, Any]:
    try:
        fields = go_json.parse(content)
    except go_json.NoDocument as exc:
        raise _invalid(what, str(exc)) from exc
    if not isinstance(fields, dict):
        raise _invalid(what, "it is no JSON object")
    fields = go_json.fields(fields)
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise _invalid(what, "it is a manifest and an index at once, so that its digest could stand for two images")
    return fields


def _media_type(fields: dict[str, Any], told: str, what: str) -> str:
    """The body's own word: docker's or OCI's, whatever it was called where it is named, as long as both are of one kind.

    What the fields say must be of that kind too.
    """
    own = kind_of(str(fields.get("mediatype") or ""))
    known = (*_INDEXES, *_MANIFESTS)
    if own in known and told in known and is_index(own) != is_index(told):
        raise _invalid(what, f"it says it is {own!r}, and the registry says {told!r}")
    media_type = own or (told if told in known else "")
    if not media_type:
        media_type = OCI_INDEX if "manifests" in fields else OCI_MANIFEST
    if media_type not in known:
        raise _invalid(what, f"its media type {str(media_type)[:100]!r} is neither a manifest nor an index")
    if is_index(media_type) != ("manifests" in fields):
        raise _invalid(what, f"it says it is {media_type!r}, and its fields say otherwise")
    return str(media_type)


def _invalid(what: str, why: str) -> Permanent:
    return Permanent(f"the manifest of {what} is refused: {why}", code="MANIFEST_INVALID")

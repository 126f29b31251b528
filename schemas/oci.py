"""The OCI documents and identifiers that events speak of.

Source: OCI image-spec 1.1 (descriptor, manifest, index, config). Only the fields that pullonce reads are named; unknown
fields are skipped, since the spec lets documents grow.
"""

from typing import Annotated, NewType

import msgspec
from msgspec import Meta

# `(?!\n)$`: Python's `$` also matches before a newline at the end; JSON Schema's dialect reads the pattern the same way.
_Hash = Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})(?!\n)$")]
_HashOrNone = Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})?(?!\n)$")]

Digest = NewType("Digest", _Hash)
"""`sha256:<64 hex>`, or `sha512:<128 hex>`: hash of the bytes as stored (a manifest, a config, a compressed layer)."""

DiffID = NewType("DiffID", _HashOrNone)
"""Like a digest: hash of a layer's *uncompressed* tar. Never used to name a blob. Empty where there is none."""

ChainID = NewType("ChainID", _HashOrNone)
"""Like a digest: names a layer together with all layers below it; the key of a snapshot. Empty below the lowest layer."""


_DOTTED = {"os_version": "os.version", "os_features": "os.features"}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True, rename=_DOTTED):
    """Operating system and processor an image is for (image-spec, image index, `platform`)."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Media type, digest and size of some content (image-spec, descriptor)."""

    media_type: str
    digest: Digest
    size: int
    """Size in bytes of the content as stored."""
    urls: tuple[str, ...] = ()
    annotations: dict[str, str] = {}
    data: str | None = None
    """The content itself, base64 encoded, where the publisher embedded it."""
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One platform's config and layers (image-spec, image manifest; also docker's schema 2)."""

    schema_version: int
    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A list of manifests by platform (image-spec, image index; also docker's manifest list)."""

    schema_version: int
    manifests: tuple[Descriptor, ...]
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}


class RootFS(msgspec.Struct, frozen=True):
    """The layers of a config, as diffIDs, bottom first."""

    diff_ids: tuple[str, ...] = ()
    """DiffIDs, once they are checked: a config may say anything."""
    type: str = "layers"


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename=_DOTTED):
    """What runs and on which layers (image-spec, image configuration). Its digest is the image ID."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    rootfs: RootFS = RootFS()

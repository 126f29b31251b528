"""Small images, made and pushed: layers from tar bytes, OCI or docker's schema 2, one platform or an index of several."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import zstandard

Compression = Literal["gzip", "zstd", "plain"]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "plain": ""}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of ordinary files, always the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Layer:
    """A layer's blob as a registry keeps it."""

    blob: bytes
    diff_id: str
    compression: Compression = "gzip"

    @property
    def digest(self) -> str:
        return digest_of(self.blob)


def layer(tar: bytes, compression: Compression = "gzip") -> Layer:
    """Compress a tar to a layer."""
    if compression == "gzip":
        blob = gzip.compress(tar, compresslevel=1, mtime=0)
    elif compression == "zstd":
        blob = zstandard.ZstdCompressor(level=1).compress(tar)
    else:
        blob = tar
    return Layer(blob, digest_of(tar), compression)


@dataclass(frozen=True)
class Image:
    """One manifest, or an index of several, with all that it needs.

    Attributes:
        content: the manifest's (or index's) own bytes.
        blobs: config and layers by digest; of all platforms, for an index.
        manifests: the manifests below an index, by digest, as (media type, bytes).
    """

    media_type: str
    content: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    platform: str = ""

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.content)
        return document

    @property
    def layers(self) -> list[str]:
        """Digests of the layers, bottom first."""
        return [entry["digest"] for entry in self.document["layers"]]

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


def image(
    layers: Iterable[Layer], *, platform: str = "linux/amd64", docker: bool = False, extra: Mapping[str, Any] = {},
    process: Mapping[str, Any] = {},
) -> Image:  # fmt: skip
    """An image of one platform.

    Args:
        docker: schema 2 instead of OCI.
        extra: fields to put over the manifest's own.
        process: what the config says of a container's process: `User`, `Entrypoint`.
    """
    stack = list(layers)
    system, architecture, *variant = platform.split("/")
    config = _json(
        {
            "os": system,
            "architecture": architecture,
            **({"variant": variant[0]} if variant else {}),
            "config": dict(process),
            "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in stack]},
        }
    )
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, config),
        "layers": [_descriptor(_layer_type(each, docker), each.blob) for each in stack],
        **extra,
    }
    blobs = {digest_of(config): config, **{each.digest: each.blob for each in stack}}
    return Image(media_type, _json(manifest), blobs, platform=platform)


def index(images: Iterable[Image], *, docker: bool = False, more: Iterable[Mapping[str, Any]] = ()) -> Image:
    """An index over images of several platforms. `more`: further entries as they are."""
    below = list(images)
    entries = []
    for each in below:
        system, architecture, *variant = each.platform.split("/")
        platform = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        entries.append({**each.descriptor(), "platform": platform})
    media_type = DOCKER_LIST if docker else OCI_INDEX
    content = _json({"schemaVersion": 2, "mediaType": media_type, "manifests": [*entries, *more]})
    manifests = {each.digest: (each.media_type, each.content) for each in below}
    for each in below:
        manifests |= each.manifests
    return Image(media_type, content, {d: b for each in below for d, b in each.blobs.items()}, manifests)


def push(host: str, repository: str, tag: str, pushed: Image) -> str:
    """Push an image, everything below it first, to a registry that asks for no password. Returns its reference."""
    connection = http.client.HTTPConnection(host, timeout=30)
    for digest, blob in pushed.blobs.items():
        _push_blob(connection, repository, digest, blob)
    for digest, (media_type, content) in pushed.manifests.items():
        _put(connection, f"/v2/{repository}/manifests/{digest}", content, media_type)
    _put(connection, f"/v2/{repository}/manifests/{tag}", pushed.content, pushed.media_type)
    connection.close()
    return f"{host}/{repository}:{tag}"


def _push_blob(connection: http.client.HTTPConnection, repository: str, digest: str, blob: bytes) -> None:
    connection.request("POST", f"/v2/{repository}/blobs/uploads/")
    response = connection.getresponse()
    response.read()
    assert response.status == 202, response.status
    parts = urlsplit(response.headers["Location"])
    query = f"{parts.query}&digest={digest}" if parts.query else f"digest={digest}"
    _put(connection, f"{parts.path}?{query}", blob, "application/octet-stream")


def _put(connection: http.client.HTTPConnection, path: str, content: bytes, media_type: str) -> None:
    connection.request("PUT", path, content, {"Content-Type": media_type})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 201, (path, response.status, body)


def _layer_type(each: Layer, docker: bool) -> str:
    if docker:
        return "application/vnd.docker.image.rootfs.diff.tar" + (".gzip" if each.compression == "gzip" else "")
    return f"application/vnd.oci.image.layer.v1.tar{_SUFFIX[each.compression]}"


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()

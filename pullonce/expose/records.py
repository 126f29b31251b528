"""What containers/storage wants to read of layers and images in a store that it only reads. Pure.

    layer id      that of the lowest is its diffID; above, sha256 of the id below, `+` and the diffID. podman computes the same,
                  and so finds a layer that it was about to fetch
    image id      the digest of the config
    big data      documents of an image under keys: `manifest`, `manifest-<digest>`, and the config under its digest

One record that cannot be read keeps podman from all others, and so do two images of one name: so times are checked here, and
names are given once. Source: github.com/containers/storage, layers.go, images.go, store.go (`makeBigDataBaseName`); tried with
podman 4.3.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from pullonce.oci import platform as platforms
from pullonce.oci.digest import digest_bytes
from pullonce.oci.reference import parse
from pullonce.store.entries import ImageRecord
from schemas.oci import ChainID, Descriptor, DiffID, Digest

NEVER = "0001-01-01T00:00:00Z"
"""How Go writes the time that was not set."""

_COMPRESSIONS = {"tar": 0, "bzip2": 1, "gzip": 2, "xz": 3, "zstd": 4}
_PLAIN_KEY = re.compile("[.0-9a-z]*")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image at its place in the stack."""

    id: str
    parent: str
    """Id of the layer below; empty for the lowest."""
    chain_id: ChainID
    diff_id: DiffID
    blob: Descriptor
    link: str
    """The short name by which mounts refer to it: that of its tree, so that a collector finds it in the mount table."""


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about a layer when its tar-split was made."""

    diff_id: DiffID
    blob: Digest
    blob_size: int
    size: int
    """Bytes of the uncompressed tar: whoever pushes it relies on them."""
    compression: str
    uids: list[int]
    gids: list[int]
    created: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it is shown: one, however many references and manifests name it."""

    id: str
    names: tuple[str, ...]
    digest: Digest
    """Of its manifest."""
    top: str
    """Id of its uppermost layer."""
    documents: Mapping[str, bytes]
    """Big data by key."""
    created: str


def stack(
    chain_ids: Sequence[ChainID], diff_ids: Sequence[DiffID], blobs: Sequence[Descriptor], links: Callable[[ChainID], str]
) -> list[Layer]:
    """The layers of an image, bottom first. `links` tells the short name of each."""
    layers: list[Layer] = []
    for chain_id, diff_id, blob in zip(chain_ids, diff_ids, blobs, strict=True):
        parent, component = layers[-1].id if layers else "", diff_id.partition(":")[2]
        name = hashlib.sha256(f"{parent}+{component}".encode()).hexdigest() if parent else component
        layers.append(Layer(name, parent, chain_id, diff_id, blob, links(chain_id)))
    return layers


def lowers(layers: Sequence[Layer]) -> dict[str, str]:
    """Layer id → what its file `lower` says: the layers below it, the nearest first; empty for the lowest."""
    found, below = {}, list[str]()
    for layer in layers:
        found[layer.id] = ":".join(below)
        below.insert(0, f"l/{layer.link}")
    return found


def names(images: Iterable[ImageRecord], wanted: str) -> dict[tuple[str, str], str]:
    """Reference and platform of each image → its name. What has a tag has it in the name, else the digest.

    Of several platforms of a reference, that which serves the wanted one best has its name, and the others have the digest of
    their manifest for a tag: a name stands for one image.
    """
    order = platforms.preferences(wanted)

    def rank(image: ImageRecord) -> tuple[int, str]:
        return order.index(image.platform) if image.platform in order else len(order), image.platform

    found: dict[tuple[str, str], str] = {}
    owners: dict[str, Digest] = {}
    for image in sorted(images, key=rank):
        reference = parse(image.reference)
        name = f"{reference.name}@{reference.digest}" if reference.digest else image.reference
        if owners.setdefault(name, image.image_id) != image.image_id:
            name = f"{reference.name}@{image.manifest.digest}"
            owners[name] = image.image_id
        found[image.reference, image.platform] = name
    return found


def documents(manifests: Sequence[bytes], indexes: Iterable[bytes], config: tuple[Digest, bytes]) -> dict[str, bytes]:
    """The big data of an image: its manifests, the first of which is the one, the indexes that name them, its config."""
    found = {"manifest": manifests[0]}
    found |= {f"manifest-{digest_bytes(each)}": each for each in (*manifests, *indexes)}
    return {**found, config[0]: config[1]}


def file_name(key: str) -> str:
    """What the file of a big data key is called."""
    return key if _PLAIN_KEY.fullmatch(key) else "=" + base64.b64encode(key.encode()).decode()


def created(value: object) -> str:
    """A time as Go reads it; `NEVER` for what it would not."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return NEVER
    try:
        datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    except ValueError:
        return NEVER
    return found[0]


def layer_record(layer: Layer, facts: LayerFacts) -> dict[str, Any]:
    """A layer in `layers.json`."""
    return {
        "id": layer.id,
        **({"parent": layer.parent} if layer.parent else {}),
        "created": facts.created,
        "compressed-diff-digest": facts.blob,
        "compressed-size": facts.blob_size,
        "diff-digest": facts.diff_id,
        "diff-size": facts.size,
        "compression": _COMPRESSIONS[facts.compression],
        "uidset": facts.uids,
        "gidset": facts.gids,
    }


def image_record(image: Image) -> dict[str, Any]:
    """An image in `images.json`."""
    return {
        "id": image.id,
        "digest": image.digest,
        "names": list(image.names),
        "layer": image.top,
        "metadata": "{}",
        "big-data-names": list(image.documents),
        "big-data-sizes": {key: len(content) for key, content in image.documents.items()},
        "big-data-digests": {key: digest_bytes(content) for key, content in image.documents.items()},
        "created": image.created,
    }

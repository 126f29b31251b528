"""Every order, one class a type, named verb.noun in the imperative so that none can be read as a fact.

An order lies in a work queue under a subject of its own until a worker has carried it out and published the facts. It
carries the revision of the claim that justifies it; the facts carry it back.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.fact import Flight, Policy, Sequence, Source, Token
from schemas.malformed import Malformed, read
from schemas.oci import ChainID, Descriptor, DiffID, Digest

Revision = Annotated[int, Meta(ge=0)]
"""Revision of the claim under which the order was given. Fences: a late failure under an older one changes nothing."""


class Order(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Something to be done, at least once, by exactly one worker at a time."""

    store: Token = "default"
    revision: Revision = 0


class ResolveReference(Order, frozen=True, kw_only=True, tag="resolve.reference"):
    """Find out what a reference names, choose the platform's manifest, and store manifest and config."""

    reference: str
    flight: Flight
    opened: Sequence
    platform: str = ""
    credential: str = ""
    policy: Policy = "always"
    unpack: bool = True
    """Whether its layers are to be unpacked: then there may not be more than can be mounted."""


class FetchBlob(Order, frozen=True, kw_only=True, tag="fetch.blob"):
    """Bring one blob into the content store, verified."""

    blob: Descriptor
    source: Source


class UnpackLayer(Order, frozen=True, kw_only=True, tag="unpack.layer"):
    """Turn one layer into the snapshot of its ChainID. May be given while the blob is still being fetched."""

    chain_id: ChainID
    diff_id: DiffID
    blob: Descriptor
    parent: ChainID = ChainID("")
    """ChainID of the layer below; empty for the lowest."""


class RecordImage(Order, frozen=True, kw_only=True, tag="record.image"):
    """List the image in the store's index under its reference, now that everything it needs is there."""

    reference: str
    flight: Flight
    opened: Sequence
    platform: str
    digest: Digest
    manifest: Descriptor
    config: Descriptor
    chain_ids: tuple[ChainID, ...] = ()
    """The snapshots, bottom first; empty where nothing was unpacked."""
    source: Source | None = None
    """Where manifest and config come from, should they be gone by then; None: from nowhere."""


ORDERS: dict[str, type[Order]] = {
    str(kind.__struct_config__.tag): kind for kind in (ResolveReference, FetchBlob, UnpackLayer, RecordImage)
}
"""Every order class by its type."""

_decoders = {kind: msgspec.json.Decoder(cls) for kind, cls in ORDERS.items()}


def decode(subject: str, body: bytes) -> Order:
    """Read the order stored under a subject.

    Raises:
        Malformed: the subject names no order type, or the body does not fit it.
    """
    kind = ".".join(subject.split(".", 2)[:2])
    decoder = _decoders.get(kind)
    if decoder is None:
        raise Malformed(f"no order type is called {kind!r}")
    return read(decoder, body, kind)

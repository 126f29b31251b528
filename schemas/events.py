"""Every fact pullonce knows, one class a type.

An event is named noun.verbed, in the past: reading it says what is now true. Its `type` tag is also the first two tokens
of the subject it is stored under (see `subjects.py`). Time, message id, cause and sequence travel in headers and delivery
metadata, so a body never contradicts the log. Readers skip fields they do not know; new fields only come with a default;
a changed meaning is a new type.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.oci import ChainID, Descriptor, DiffID, Digest

# `(?!\n)$`: Python's `$` also matches before a newline at the end, and a newline in a subject would end the command line
# of the NATS protocol; JSON Schema's dialect reads the pattern the same way.
Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?!\n)$")]
"""One subject token chosen by people: the name of a store, a credential or a holder."""

Flight = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}(?!\n)$")]
"""Short hash of a flight key; see `subjects.flight_of`."""

Sequence = Annotated[int, Meta(ge=0)]
"""A position in the log: the stream sequence of an event. 0 lies before the first."""

Seconds = dict[str, float]
"""How long each step of some work took, in the order in which the steps came: step → seconds. They follow one another, so
the sum is what the worker spent on it, and the work ended when its event was stored. Steps may be added at any time."""

Policy = Literal["always", "if-not-present"]
"""`always` asks the registry once a flight what the tag is now; `if-not-present` is content with a complete local image."""

Concerns = Literal["key", "source", "credential", "nobody"]
"""Whom a failure concerns: everybody who waits for the key (`key`: the disk is full); those who wait for it from the same
source (`source`: this repository has no such blob; for a layer, those who unpack it from the same blob); those of them
who use the same credential (`credential`); or nobody, an attempt that came to nothing and may be made again (`nobody`)."""


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Something that happened. Immutable, and true for ever."""

    store: Token = "default"


class Source(Struct, frozen=True, omit_defaults=True):
    """Where a blob is fetched from: the repository, and the name of the credential that opens it (never the secret)."""

    registry: str
    repository: str
    credential: str = ""


class ResolvedLayer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One layer of a resolved image, and what the store's disk holds of it at the moment of resolving."""

    blob: Descriptor
    diff_id: DiffID = DiffID("")
    """Empty where the blob is no file-system layer (an artifact): it is fetched and never unpacked."""
    chain_id: ChainID = ChainID("")
    fetched: bool = False
    """The blob is in the content store."""
    unpacked: bool = False
    """The snapshot is committed."""


class Sharing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the work of one flight was shared. Counts of blobs, layers and requests; bytes as stored."""

    requests: int = 0
    """Requests that this ending answers."""
    fetched: int = 0
    fetched_bytes: int = 0
    reused: int = 0
    """Blobs that were in the store already."""
    reused_bytes: int = 0
    waited: int = 0
    """Blobs that another flight had ordered and this one waited for."""
    waited_bytes: int = 0
    unpacked: int = 0
    unpack_reused: int = 0
    unpack_waited: int = 0


# -- a pull, from the first request to its ending ----------------------------------------------------------------------


class PullRequested(Event, frozen=True, kw_only=True, tag="pull.requested"):
    """Someone wants this reference for this platform in this store.

    Joins the flight in the air for its key, or opens one. Only `reference` must be given.
    """

    reference: Annotated[str, Meta(min_length=1, max_length=512)]
    platform: Annotated[str, Meta(max_length=64)] = ""
    """`os/architecture[/variant]`; empty: the platform of the machine that owns the store."""
    credential: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}(?!\n)$")] = ""
    """Name of a credential that the fetcher knows; empty: the one configured for the registry, or none."""
    policy: Policy = "always"
    unpack: bool = True
    requester: Annotated[str, Meta(max_length=128)] = ""
    """Free text that says who asked; kept for the history."""


class PullResolved(Event, frozen=True, kw_only=True, tag="pull.resolved"):
    """The manifest and config of a flight are known and stored; these are its layers, bottom first."""

    reference: str
    flight: Flight
    opened: Sequence
    """Position at which the flight was opened: an answer for an earlier one of the same key is not for this one."""
    platform: str
    """The platform that was chosen."""
    source: Source
    digest: Digest
    """What the reference names now: an index or a manifest."""
    manifest: Descriptor
    config: Descriptor
    """Its digest is the image ID."""
    layers: tuple[ResolvedLayer, ...] = ()
    recorded: bool = False
    """The store's index already lists exactly this image under this reference."""
    revision: int = 0
    seconds: Seconds = {}
    """`token`, `head`, `manifest` (documents by GET), `config`, `store` (all that is no request)."""


class PullUnresolved(Event, frozen=True, kw_only=True, tag="pull.unresolved"):
    """The fetcher gave up resolving a flight's reference for good."""

    reference: str
    flight: Flight
    opened: Sequence
    code: str
    message: str
    revision: int = 0


class PullRecorded(Event, frozen=True, kw_only=True, tag="pull.recorded"):
    """The store's index lists the image under its reference. Everything the image needs was there before."""

    reference: str
    flight: Flight
    opened: Sequence
    revision: int = 0
    seconds: Seconds = {}
    """`record`."""


CONTENT_MISSING = "content.missing"
"""Code of an image that cannot be listed yet: something it needs was there and is not any more. What is missing is said to be
lost just before; the flight waits for it once more and is listed then."""


class PullUnrecorded(Event, frozen=True, kw_only=True, tag="pull.unrecorded"):
    """The store's index could not be written: for good, unless the code is `content.missing`."""

    reference: str
    flight: Flight
    opened: Sequence
    code: str
    message: str
    revision: int = 0


class PullCompleted(Event, frozen=True, kw_only=True, tag="pull.completed"):
    """The flight ended well: answers every request for its key whose sequence is below `covers`."""

    reference: str
    flight: Flight
    opened: Sequence
    covers: Sequence
    platform: str
    digest: Digest
    """What the reference names: an index or a manifest."""
    manifest: Digest
    """The manifest of the chosen platform."""
    image_id: Digest
    chain_id: ChainID = ChainID("")
    """The top layer's ChainID: the snapshot to mount. Empty where nothing was unpacked."""
    layers: int = 0
    size: int = 0
    """Bytes of all layers as stored."""
    sharing: Sharing = Sharing()


class PullFailed(Event, frozen=True, kw_only=True, tag="pull.failed"):
    """The flight ended badly: answers every request for its key whose sequence is below `covers`."""

    reference: str
    flight: Flight
    opened: Sequence
    covers: Sequence
    code: str
    """Of the distribution spec where it has one (`MANIFEST_UNKNOWN`), else lower-case dotted (`digest.mismatch`)."""
    message: str
    """What happened, what was expected, what to do."""
    requests: int = 0


class PullCancelled(Event, frozen=True, kw_only=True, tag="pull.cancelled"):
    """A requester left. The work goes on while anyone waits."""

    reference: str
    flight: Flight
    request: Sequence
    """Sequence of the request that is withdrawn."""


# -- blobs -------------------------------------------------------------------------------------------------------------


class BlobClaimed(Event, frozen=True, kw_only=True, tag="blob.claimed"):
    """A coordinator won the claim of a blob, and its order under this revision is in the work queue."""

    digest: Digest
    revision: int
    holder: Token


class BlobFetched(Event, frozen=True, kw_only=True, tag="blob.fetched"):
    """The blob is complete, verified and visible in the content store. Settles the key for every flight."""

    digest: Digest
    size: int
    revision: int
    reused: bool = False
    """It was there already: no byte was transferred for this order."""
    seconds: Seconds = {}
    """`look` (at the disk, and for whoever else writes it), `slot` (others fetch from this registry), `token`, `answer` (until
    the first byte), `transfer`, `verify` (the last bytes, digest, sync, rename)."""


class BlobFailed(Event, frozen=True, kw_only=True, tag="blob.failed"):
    """The fetcher gave up on a blob for good, under this revision of its claim."""

    digest: Digest
    revision: int
    source: Source
    concerns: Concerns
    code: str
    message: str


class BlobLost(Event, frozen=True, kw_only=True, tag="blob.lost"):
    """The blob was in the content store and is not any more: removed, or found damaged."""

    digest: Digest
    reason: str = ""


# -- layers ------------------------------------------------------------------------------------------------------------


class LayerClaimed(Event, frozen=True, kw_only=True, tag="layer.claimed"):
    """A coordinator won the claim of a layer, and its order under this revision is in the work queue."""

    chain_id: ChainID
    revision: int
    holder: Token


class LayerUnpacked(Event, frozen=True, kw_only=True, tag="layer.unpacked"):
    """The snapshot is complete, its diffID verified, and committed under its ChainID. Settles the key for every flight."""

    chain_id: ChainID
    diff_id: DiffID
    revision: int
    reused: bool = False
    entries: int = 0
    size: int = 0
    """Bytes of file content."""
    left_out: dict[str, int] = {}
    """What an unprivileged unpacker could not make, by kind: owners, devices, xattrs."""
    seconds: Seconds = {}
    """`bytes` (until there was something to unpack), `slot` (until a process was free), `unpack` (as fast as the bytes came),
    `blob` (until the blob was verified), `parent` (until the layer below was there), `complete` (by what lies below),
    `commit`."""


class LayerFailed(Event, frozen=True, kw_only=True, tag="layer.failed"):
    """The unpacker gave up on a layer for good, under this revision of its claim."""

    chain_id: ChainID
    blob: Digest
    revision: int
    concerns: Concerns
    code: str
    message: str


class LayerLost(Event, frozen=True, kw_only=True, tag="layer.lost"):
    """The snapshot was committed and is not there any more."""

    chain_id: ChainID
    reason: str = ""


# -- stores ------------------------------------------------------------------------------------------------------------


class StoreOpened(Event, frozen=True, kw_only=True, tag="store.opened"):
    """A store is served, in this incarnation. A new incarnation holds nothing of what an earlier one held."""

    incarnation: Token


EVENTS: dict[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        PullRequested, PullResolved, PullUnresolved, PullRecorded, PullUnrecorded, PullCompleted, PullFailed, PullCancelled,
        BlobClaimed, BlobFetched, BlobFailed, BlobLost,
        LayerClaimed, LayerUnpacked, LayerFailed, LayerLost,
        StoreOpened,
    )
}  # fmt: skip
"""Every event class by its type."""


class Malformed(Exception):
    """A message that is no event: the reason, in one line. Such a message is parked, never folded."""


_decoders = {kind: msgspec.json.Decoder(cls) for kind, cls in EVENTS.items()}


def decode(subject: str, body: bytes) -> Event:
    """Read the event stored under a subject.

    The subject names the type; a body may leave its `type` out, so that `{"reference": "redis"}` is a request. What a subject
    says of the store holds: on a bus with permissions, whoever speaks for one store only is held to subjects.

    Raises:
        Malformed: the subject names no event type, or the body does not fit it.
    """
    tokens = subject.split(".", 3)
    kind = ".".join(tokens[:2])
    decoder = _decoders.get(kind)
    if decoder is None:
        raise Malformed(f"no event type is called {kind!r}")
    try:
        event = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed(f"not a {kind}: {exc}") from exc
    if len(tokens) > 2 and event.store != tokens[2]:
        raise Malformed(f"its subject is of the store {tokens[2]!r}, its body of {event.store!r}")
    return event

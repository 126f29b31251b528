"""The facts of the work that pulls share: blobs, layers, and the store they lie in."""

from schemas.fact import Concerns, Event, Seconds, Source, Token
from schemas.oci import ChainID, DiffID, Digest

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
    """Bytes of file content as stored: holes of sparse files take none."""
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

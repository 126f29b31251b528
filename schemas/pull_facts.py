"""The facts of a pull, from the first request to its ending."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.fact import Event, Flight, Policy, Seconds, Sequence, Source
from schemas.oci import ChainID, Descriptor, DiffID, Digest


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


class PullRequested(Event, frozen=True, kw_only=True, tag="pull.requested"):
    """Someone wants this reference for this platform in this store.

    Joins the flight in flight for its key, or opens one. Only `reference` must be given.
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
    door: Annotated[str, Meta(pattern=r"^[a-z0-9-]{0,32}(?!\n)$")] = ""
    """By which door the request came, for the history: `cli`, `client`, `import`, `verify`, `snapshotter`, `mirror`, `cri`…
    Empty: it was not said, as by other clients of the bus."""
    seal: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?(?!\n)$")] = ""
    """SHA-256 of a secret that only the requester knows, in hexadecimal: who says the secret may withdraw the request. Empty:
    nobody may."""


class OfFlight(Event, frozen=True, kw_only=True):
    """A fact of one flight, told apart from earlier flights of the same key."""

    reference: str
    flight: Flight
    opened: Sequence
    """Position at which the flight was opened: an answer for an earlier one of the same key is not for this one."""


class Ended(OfFlight, frozen=True, kw_only=True):
    """How a flight ended."""

    covers: Sequence
    """Every request for its key whose sequence is below this is answered."""


class PullResolved(OfFlight, frozen=True, kw_only=True, tag="pull.resolved"):
    """The manifest and config of a flight are known and stored; these are its layers, bottom first."""

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


class PullUnresolved(OfFlight, frozen=True, kw_only=True, tag="pull.unresolved"):
    """The fetcher gave up resolving a flight's reference for good."""

    code: str
    message: str
    revision: int = 0


class PullRecorded(OfFlight, frozen=True, kw_only=True, tag="pull.recorded"):
    """The store's index lists the image under its reference. Everything the image needs was there before."""

    revision: int = 0
    seconds: Seconds = {}
    """`record`."""


CONTENT_MISSING = "content.missing"
"""Code of an image that cannot be listed yet: something it needs was there and is not any more. What is missing is said to be
lost just before; the flight waits for it once more and is listed then."""


class PullUnrecorded(OfFlight, frozen=True, kw_only=True, tag="pull.unrecorded"):
    """The store's index could not be written: for good, unless the code is `content.missing`."""

    code: str
    message: str
    revision: int = 0


class PullCompleted(Ended, frozen=True, kw_only=True, tag="pull.completed"):
    """The flight ended well: answers every request for its key whose sequence is below `covers`."""

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


class PullFailed(Ended, frozen=True, kw_only=True, tag="pull.failed"):
    """The flight ended badly: answers every request for its key whose sequence is below `covers`."""

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
    secret: Annotated[str, Meta(max_length=128)] = ""
    """Whose SHA-256 is the seal of that request; with any other, this counts for nothing."""

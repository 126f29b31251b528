"""One golden example of every message, told as one pull of a two-layer redis image. `export.py` writes them as JSON.

The digests are those of a real image. An example holds every field that a reader cannot do without, and those optional
ones that matter in the story.
"""

from schemas import events, orders, progress
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.roles import Message
from schemas.subjects import flight_of, seal_of

_REFERENCE = "docker.io/library/redis:latest"
_PLATFORM = "linux/amd64"
_SOURCE = events.Source(registry="registry-1.docker.io", repository="library/redis")
_FLIGHT = flight_of(_REFERENCE, {"platform": _PLATFORM})
_OPENED = 41
_SECRET = "9f3c1d57a0b24e68"
_HOLDER = "coordinator-7f3a"

_MANIFEST = Descriptor(
    media_type="application/vnd.oci.image.manifest.v1+json",
    digest=Digest("sha256:373db444db5f7f70a4c4dcdd3b2b00f0104d5a3fb269ded4067fe399b875bf97"),
    size=1233,
)
_CONFIG = Descriptor(
    media_type="application/vnd.oci.image.config.v1+json",
    digest=Digest("sha256:887c0f800c1e8ce4ba477b4fdd7249b876959890499b6da8734731da67ccebd7"),
    size=1087,
)
_BASE = Descriptor(
    media_type="application/vnd.oci.image.layer.v1.tar+gzip",
    digest=Digest("sha256:93e5ca0a77278292a9cecb6bbec73c98ecfe50e901636ba3186ff86adcd2811b"),
    size=28_178_855,
)
_TOP = Descriptor(
    media_type="application/vnd.oci.image.layer.v1.tar+gzip",
    digest=Digest("sha256:57bf3ccacec4ea0c7c01d30ca85216b7a20ba47ced06d92b61a64896746193fc"),
    size=1137,
)
_INDEX = Digest("sha256:6ae50aea375cf5e7917e0c2a524db6d371ead3cacfc37ac47ac34eb30697b106")
_BASE_DIFF = DiffID("sha256:fbe8685f1129328ab0f3afbe5aed81dcf83cb7e582174533da2295734a11f2ef")
_TOP_DIFF = DiffID("sha256:392265a2a1994165704832513622e5feb3e44708dde4385094c1d7d13a95e827")
_BASE_CHAIN = ChainID(_BASE_DIFF)
_TOP_CHAIN = ChainID("sha256:e120bb9d6f43270e53cbe49f264845085c7be022308ac3dca8af062f6a40b801")

_STORY: tuple[Message, ...] = (
    events.StoreOpened(incarnation="5d1c0e2f9a7b4c38"),
    events.PullRequested(
        reference=_REFERENCE, platform=_PLATFORM, requester="node-17/kubelet", door="cri", seal=seal_of(_SECRET)
    ),
    orders.ResolveReference(reference=_REFERENCE, flight=_FLIGHT, opened=_OPENED, platform=_PLATFORM, revision=7),
    events.PullResolved(
        reference=_REFERENCE,
        flight=_FLIGHT,
        opened=_OPENED,
        platform=_PLATFORM,
        source=_SOURCE,
        digest=_INDEX,
        manifest=_MANIFEST,
        config=_CONFIG,
        layers=(
            events.ResolvedLayer(blob=_BASE, diff_id=_BASE_DIFF, chain_id=_BASE_CHAIN, fetched=True, unpacked=True),
            events.ResolvedLayer(blob=_TOP, diff_id=_TOP_DIFF, chain_id=_TOP_CHAIN),
        ),
        revision=7,
    ),
    orders.FetchBlob(blob=_TOP, source=_SOURCE, revision=12),
    events.BlobClaimed(digest=_TOP.digest, revision=12, holder=_HOLDER),
    orders.UnpackLayer(chain_id=_TOP_CHAIN, diff_id=_TOP_DIFF, blob=_TOP, parent=_BASE_CHAIN, revision=13),
    events.LayerClaimed(chain_id=_TOP_CHAIN, revision=13, holder=_HOLDER),
    progress.BlobProgress(
        digest=_TOP.digest, done=1024, size=1137, worker="fetcher 4711 on node-17", attempt=1, since=1_795_500_000.5
    ),
    events.BlobFetched(digest=_TOP.digest, size=1137, revision=12),
    progress.LayerProgress(chain_id=_TOP_CHAIN, blob=_TOP.digest, done=1137, size=1137, state="committed"),
    events.LayerUnpacked(chain_id=_TOP_CHAIN, diff_id=_TOP_DIFF, revision=13, entries=9, size=3541, left_out={"owners": 2}),
    orders.RecordImage(
        reference=_REFERENCE,
        flight=_FLIGHT,
        opened=_OPENED,
        platform=_PLATFORM,
        digest=_INDEX,
        manifest=_MANIFEST,
        config=_CONFIG,
        chain_ids=(_BASE_CHAIN, _TOP_CHAIN),
        revision=19,
    ),
    events.PullRecorded(reference=_REFERENCE, flight=_FLIGHT, opened=_OPENED, revision=19),
    events.PullCompleted(
        reference=_REFERENCE,
        flight=_FLIGHT,
        opened=_OPENED,
        covers=67,
        platform=_PLATFORM,
        digest=_INDEX,
        manifest=_MANIFEST.digest,
        image_id=_CONFIG.digest,
        chain_id=_TOP_CHAIN,
        layers=2,
        size=_BASE.size + _TOP.size,
        sharing=events.Sharing(
            requests=20,
            fetched=1,
            fetched_bytes=_TOP.size,
            reused=1,
            reused_bytes=_BASE.size,
            unpacked=1,
            unpack_reused=1,
        ),
    ),
)
"""A pull that ends well, in the order in which things happen."""

_MISHAPS: tuple[Message, ...] = (
    events.PullCancelled(reference=_REFERENCE, flight=_FLIGHT, request=43, secret=_SECRET),
    progress.PullProgress(
        reference=_REFERENCE,
        flight=_FLIGHT,
        opened=_OPENED,
        state="retrying",
        error="docker.io/library/redis:latest: the registry answers 429: too many requests",
        retry_in=1.0,
        worker="fetcher 4711 on node-17",
        attempt=1,
        since=1_795_500_000.5,
    ),
    events.PullUnresolved(
        reference=_REFERENCE,
        flight=_FLIGHT,
        opened=_OPENED,
        code="MANIFEST_UNKNOWN",
        message="registry-1.docker.io has no library/redis:latest; check the name and the tag",
        revision=7,
    ),
    events.PullUnrecorded(
        reference=_REFERENCE,
        flight=_FLIGHT,
        opened=_OPENED,
        code="store.full",
        message="index.json could not be written: no space left on the store's disk; free some and pull again",
        revision=19,
    ),
    events.PullFailed(
        reference=_REFERENCE,
        flight=_FLIGHT,
        opened=_OPENED,
        covers=52,
        code="MANIFEST_UNKNOWN",
        message="registry-1.docker.io has no library/redis:latest; check the name and the tag",
        requests=20,
    ),
    events.BlobFailed(
        digest=_TOP.digest,
        revision=12,
        source=_SOURCE,
        concerns="source",
        code="digest.mismatch",
        message="library/redis on registry-1.docker.io sent 1137 bytes that do not have the digest asked for",
    ),
    events.BlobLost(digest=_TOP.digest, reason="the file was removed"),
    events.LayerFailed(
        chain_id=_TOP_CHAIN,
        blob=_TOP.digest,
        revision=13,
        concerns="source",
        code="layer.escapes",
        message="entry ../../etc/passwd leaves the layer's root; the image is damaged or hostile",
    ),
    events.LayerLost(chain_id=_TOP_CHAIN, reason="the snapshot was removed"),
)
"""What may go wrong on the way."""

SAMPLES: dict[str, Message] = {str(message.__struct_config__.tag): message for message in (*_STORY, *_MISHAPS)}
"""One example by message type."""

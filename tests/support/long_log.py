"""A long log as a busy fleet would write it: staged rows by the million, made in no time and without a bus."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pullonce.pulling.identity import identify
from schemas.events import (
    BlobClaimed,
    BlobFetched,
    Event,
    LayerClaimed,
    LayerUnpacked,
    PullCompleted,
    PullFailed,
    PullRecorded,
    PullRequested,
    PullResolved,
    ResolvedLayer,
    Sharing,
    Source,
)
from schemas.oci import ChainID, Descriptor, DiffID, Digest

IMAGES = 2000
_REGISTRIES = ("docker.io", "ghcr.io", "quay.io", "registry.internal:5000")
_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def long_log(length: int, *, seed: int = 1, gap: float = 0.01) -> Iterator[tuple[int, float, Event]]:
    """Sequence, time and event of some `length` events: pulls of 1 to 40 requests each, a third of them of new images.

    Args:
        gap: seconds between two events.
    """
    chance = random.Random(seed)
    sequence, now, pulls = 0, 1_700_000_000.0, 0
    while sequence < length:
        for event in _pull(chance, pulls, sequence + 1):
            sequence += 1
            now += gap
            yield sequence, now, event
        pulls += 1


def _digest(*parts: int) -> str:
    return f"sha256:{hash(parts) & (1 << 64) - 1:016x}{hash((1, *parts)) & (1 << 64) - 1:016x}{'0' * 32}"


def _pull(chance: random.Random, number: int, opened: int) -> Iterator[Event]:
    """The events of one flight. `opened`: the sequence of the first of them."""
    image = chance.randrange(IMAGES)
    registry = _REGISTRIES[image % 4]
    reference = f"{registry}/team-{image % 40}/app-{image}:latest"
    flight = identify(reference).flight
    requests = 1 + int(chance.paretovariate(1.0)) % 40
    at = opened
    for _ in range(requests):
        yield PullRequested(reference=reference, requester=f"node-{chance.randrange(500)}/kubelet")
    at += requests
    about = {"reference": reference, "flight": flight, "opened": opened}
    if chance.random() < 0.03:
        told = f"{registry} has no {reference}"
        yield PullFailed(**about, covers=at, code="MANIFEST_UNKNOWN", message=told, requests=requests)
        return
    fresh = chance.random() < 0.33
    layers = tuple(_layer(image, number, each, fresh) for each in range(1 + chance.randrange(6)))
    top = layers[-1]
    yield PullResolved(
        **about, platform="linux/amd64", source=Source(registry, reference), digest=top.blob.digest, manifest=top.blob,
        config=top.blob, layers=layers, revision=opened, seconds={"head": 0.05, "manifest": 0.04, "store": 0.001},
    )  # fmt: skip
    at += 1
    for index, layer in enumerate(layers if fresh else ()):
        yield from _work(chance, layer, opened + index)
        at += 4
    yield PullRecorded(**about, revision=at, seconds={"record": 0.002})
    size = sum(layer.blob.size for layer in layers)
    shared = Sharing(requests=requests, fetched=len(layers), fetched_bytes=size, unpacked=len(layers))
    if not fresh:
        shared = Sharing(requests=requests, reused=len(layers), reused_bytes=size, unpack_reused=len(layers))
    yield PullCompleted(
        **about, covers=at + 1, platform="linux/amd64", digest=top.blob.digest, manifest=top.blob.digest,
        image_id=top.blob.digest, chain_id=top.chain_id, layers=len(layers), size=size, sharing=shared,
    )  # fmt: skip


def _layer(image: int, number: int, index: int, fresh: bool) -> ResolvedLayer:
    name = (image, number if fresh else 0, index)
    blob = Descriptor(media_type=_MEDIA_TYPE, digest=Digest(_digest(2, *name)), size=10_000_000 + index)
    diff, chain = DiffID(_digest(3, *name)), ChainID(_digest(4, *name))
    return ResolvedLayer(blob=blob, diff_id=diff, chain_id=chain, fetched=not fresh, unpacked=not fresh)


def _work(chance: random.Random, layer: ResolvedLayer, revision: int) -> Iterator[Event]:
    yield BlobClaimed(digest=layer.blob.digest, revision=revision, holder="coordinator-1")
    yield LayerClaimed(chain_id=layer.chain_id, revision=revision, holder="coordinator-1")
    spent = {"look": 0.001, "slot": 0.02, "answer": 0.08, "transfer": chance.random(), "verify": 0.03}
    yield BlobFetched(digest=layer.blob.digest, size=layer.blob.size, revision=revision, seconds=spent)
    spent = {"bytes": 0.1, "unpack": chance.random(), "blob": 0.01, "parent": 0.1, "complete": 0.01, "commit": 0.02}
    yield LayerUnpacked(
        chain_id=layer.chain_id, diff_id=layer.diff_id, revision=revision, entries=900, size=30_000_000, seconds=spent
    )

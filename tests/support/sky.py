"""A sky for the page to show: flights in flight that share layers, with progress, failures and landings, as events."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from pullonce.bus.ports import Bus
from pullonce.errors import ReferenceInvalid
from pullonce.pulling.identity import identify
from schemas import events, routing
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.progress import BlobProgress, LayerProgress

HOSTILE = "registry.example:5000/<img src=x onerror=alert(1)>\"&'</script>"
"""What somebody may call an image; no reference at all, and shown as it is all the same."""

_TAR = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(*words: object) -> Digest:
    """One for each of whatever it is made of."""
    return Digest("sha256:" + hashlib.sha256(repr(words).encode()).hexdigest())


def layer(name: str, megabytes: float, *, fetched: bool = False, unpacked: bool = False) -> events.ResolvedLayer:
    """A layer of some size, the same whenever it is named the same."""
    blob = Descriptor(media_type=_TAR, digest=digest("blob", name), size=int(megabytes * 1e6))
    diff, chain = DiffID(digest("diff", name)), ChainID(digest("chain", name))
    return events.ResolvedLayer(blob=blob, diff_id=diff, chain_id=chain, fetched=fetched, unpacked=unpacked)


class Sky:
    """Tells a bus what a fleet would.

    Args:
        bus: with the ledger behind it.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._revision = 100

    async def ask(self, reference: str, times: int, *, who: str = "node") -> tuple[str, int]:
        """Some requests for an image, all for one flight: its name and where it was opened."""
        asked = [events.PullRequested(reference=reference, requester=f"{who}-{each}") for each in range(times)]
        sequences = await self._bus.log.append_all(asked)
        try:
            return identify(reference).flight, sequences[0]
        except ReferenceInvalid:
            return "", sequences[0]

    async def resolve(self, reference: str, flight: tuple[str, int], *layers: events.ResolvedLayer) -> None:
        """The image's layers are known, and ordered."""
        await self._bus.log.append_all(self._resolved(reference, flight, layers))

    async def resolve_all(self, flights: list[tuple[str, int, tuple[events.ResolvedLayer, ...]]]) -> None:
        """The same for many, by reference and where they were opened."""
        told: list[events.Event] = []
        for reference, opened, layers in flights:
            told += self._resolved(reference, (identify(reference).flight, opened), layers)
        await self._bus.log.append_all(told)

    def _resolved(
        self, reference: str, flight: tuple[str, int], layers: tuple[events.ResolvedLayer, ...]
    ) -> list[events.Event]:
        config = Descriptor(media_type="application/vnd.oci.image.config.v1+json", digest=digest(reference, "config"), size=900)
        normal = identify(reference).reference
        host, _, repository = normal.partition("/")
        told: list[events.Event] = []
        told.append(
            events.PullResolved(
                reference=normal,
                flight=flight[0],
                opened=flight[1],
                platform="linux/amd64",
                source=events.Source(host, repository.rpartition(":")[0]),
                digest=digest(reference),
                manifest=config,
                config=config,
                layers=layers,
                revision=self._next(),
                seconds={"head": 0.08, "manifest": 0.05, "config": 0.02},
            )
        )
        for each in layers:
            if not each.fetched:
                told.append(events.BlobClaimed(digest=each.blob.digest, revision=self._next(), holder="coordinator-1"))
            if not each.unpacked:
                told.append(events.LayerClaimed(chain_id=each.chain_id, revision=self._next(), holder="coordinator-1"))
        return told

    async def fetching(self, of: events.ResolvedLayer, share: float) -> None:
        """A fetch is that far."""
        said = BlobProgress(digest=of.blob.digest, done=int(of.blob.size * share), size=of.blob.size)
        await self._bus.signals.publish(routing.progress_subject(said), msgspec.json.encode(said))

    async def unpacking(self, of: events.ResolvedLayer, share: float) -> None:
        """An unpack is that far."""
        said = LayerProgress(
            chain_id=of.chain_id, blob=of.blob.digest, done=int(of.blob.size * share), size=of.blob.size, state="unpacking"
        )
        await self._bus.signals.publish(routing.progress_subject(said), msgspec.json.encode(said))

    async def fetched(self, of: events.ResolvedLayer) -> None:
        """A blob is there."""
        spent = {"look": 0.001, "slot": 0.04, "answer": 0.09, "transfer": of.blob.size / 6e7, "verify": 0.03}
        size, revision = of.blob.size, self._next()
        await self._bus.log.append(events.BlobFetched(digest=of.blob.digest, size=size, revision=revision, seconds=spent))

    async def unpacked(self, of: events.ResolvedLayer) -> None:
        """A layer is unpacked."""
        spent = {"bytes": 0.11, "unpack": of.blob.size / 5e7, "blob": 0.02, "parent": 0.05, "complete": 0.004, "commit": 0.012}
        about = {"diff_id": of.diff_id, "revision": self._next(), "entries": 900, "size": of.blob.size * 2}
        await self._bus.log.append(events.LayerUnpacked(chain_id=of.chain_id, seconds=spent, **about))

    async def land(self, reference: str, flight: tuple[str, int], *layers: events.ResolvedLayer, asked: int = 1) -> None:
        """The flight ends well."""
        normal, size = identify(reference).reference, sum(each.blob.size for each in layers)
        mine = [each for each in layers if not each.fetched]
        shared = events.Sharing(
            requests=asked,
            fetched=len(mine),
            fetched_bytes=sum(each.blob.size for each in mine),
            reused=len(layers) - len(mine),
            reused_bytes=size - sum(each.blob.size for each in mine),
            unpacked=len(mine),
        )
        name = {"reference": normal, "flight": flight[0], "opened": flight[1]}
        await self._bus.log.append(events.PullRecorded(**name, revision=self._next(), seconds={"record": 0.002}))
        covers = await self._bus.log.last_sequence() + 1
        await self._bus.log.append(
            events.PullCompleted(
                **name,
                covers=covers,
                platform="linux/amd64",
                digest=digest(reference),
                manifest=digest(reference),
                image_id=digest(reference, "config"),
                chain_id=layers[-1].chain_id,
                layers=len(layers),
                size=size,
                sharing=shared,
            )
        )

    async def fail(self, reference: str, flight: tuple[str, int], code: str, message: str, asked: int = 1) -> None:
        """The flight ends badly."""
        covers = await self._bus.log.last_sequence() + 1
        await self._bus.log.append(
            events.PullFailed(
                reference=identify(reference).reference,
                flight=flight[0],
                opened=flight[1],
                covers=covers,
                code=code,
                message=message,
                requests=asked,
            )
        )

    def _next(self) -> int:
        self._revision += 1
        return self._revision


def crowd(flights: int) -> Iterator[events.Event]:
    """So many flights at once, of eight layers each, a base layer shared by ten."""
    for number in range(flights):
        reference = f"registry.example/team-{number % 40}/service-{number}:1"
        yield events.PullRequested(reference=reference, requester=f"node-{number}")


def crowd_layers(number: int) -> tuple[events.ResolvedLayer, ...]:
    """The layers of one of them."""
    base = layer(f"base-{number // 10}", 30)
    return (base, *(layer(f"own-{number}-{each}", 1 + 4 * each) for each in range(7)))

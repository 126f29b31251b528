"""Build a snapshotter bottom-up and keep it running."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from pullonce.store.content import opened
from pullonce.store.mounting import shared_options
from schemas.events import PullResolved, decode
from schemas.malformed import Malformed
from services.gateway.protocols import snapshots_pb2
from services.gateway.rpc.serving import serving
from services.gateway.snapshotter.arrivals import Arrivals, Pull, Resolved
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.offers import Offers
from services.gateway.snapshotter.service import Parts, Snapshotter
from services.gateway.snapshotter.store import Records
from services.gateway.snapshotter.trees import Trees
from services.gateway.snapshotter.unlisting import Unlist, Unlisting

log = logging.getLogger(__name__)

_SLOW = 1.0
"""Seconds from which on a call that should answer at once is told of."""
_MAY_WAIT = ("Stat", "Cleanup", "Usage")


@dataclass(frozen=True, slots=True)
class Outside:
    """What a snapshotter needs of the rest: pulls, and whether they are possible."""

    pull: Pull
    unlist: Unlist
    connected: Callable[[], bool]
    shown: Callable[[Path], str] = str
    """A path as containerd sees it."""
    resolved: Resolved = field(default_factory=Resolved)


@asynccontextmanager
async def snapshotting(store: Path, place: Path, socket: Path, outside: Outside) -> AsyncIterator[Callable[[], dict[str, int]]]:
    """Serve the snapshot service of one store for as long as the block lasts; yields what counts there are.

    Args:
        store: the store's directory.
        place: of the snapshotter's own files.
        socket: where containerd asks.

    Raises:
        SocketUnusable, StateUnusable, HoldUnreadable, Permanent: it cannot begin; the message says why.
    """
    content = await asyncio.to_thread(opened, store)
    layers = Layers(content)
    records = Records(place, layers)
    await records.open()
    arrivals = Arrivals(outside.pull, layers.has)
    unlisting = Unlisting(outside.unlist, records.state, records.unlisting, lambda name: records.table.named_by(name) > 0)
    offers = Offers(records, layers, arrivals, outside.resolved, outside.connected)
    trees = Trees(layers, records.places, shared_options(), outside.shown)
    snapshotter = Snapshotter(Parts(records, layers, offers, unlisting, trees))
    calls = _Calls()
    service = snapshots_pb2.DESCRIPTOR.services_by_name["Snapshots"]
    try:
        async with asyncio.TaskGroup() as tasks, serving([service], snapshotter, socket, watch=calls.count):
            background = [tasks.create_task(work) for work in (unlisting.run(), records.settle(), _learn(trees, records))]
            log.info("containerd's snapshot service answers", extra={"socket": str(socket), **records.table.counts()})
            yield lambda: {**records.table.counts(), "calls": calls.all}
            for task in background:
                task.cancel()
    finally:
        await arrivals.close()
        await records.close()


async def _learn(trees: Trees, records: Records) -> None:
    """Look at all layers once, beside the first calls."""
    await asyncio.to_thread(trees.learn, list(records.table))


def hear_resolved(resolved: Resolved) -> Callable[[str, bytes], None]:
    """Takes in what the log says of images that others pull."""

    def hear(subject: str, body: bytes) -> None:
        try:
            event = decode(subject, body)
        except Malformed:
            return
        if isinstance(event, PullResolved):
            resolved.take(event)

    return hear


class _Calls:
    """How many calls there were, and which took longer than they should."""

    def __init__(self) -> None:
        self._by_name: Counter[str] = Counter()

    @property
    def all(self) -> int:
        return self._by_name.total()

    def count(self, method: str, request: Message, seconds: float, status: str) -> None:
        self._by_name[method] += 1
        if seconds > _SLOW and method not in _MAY_WAIT:
            key = getattr(request, "key", "")
            log.warning(
                "a call took long", extra={"method": method, "seconds": round(seconds, 3), "key": key, "status": status}
            )

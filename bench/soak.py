"""What a coordinator remembers of a million pulls: its memory on the way, and whether it grows.

./dev bench soak [--flights N] [--keep FILE]

Folds flights of three kinds in turn (a new image, one that is there, one that fails) on a board with the traces and the
low-water mark that a coordinator keeps beside it, and reads the memory of the process after ten thousand and at the end.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools.results import Row, keep
from pullonce.bus.ports import Recorded
from pullonce.pulling.identity import identify
from schemas.events import (
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    Event,
    LayerClaimed,
    LayerUnpacked,
    PullRecorded,
    PullRequested,
    PullResolved,
    ResolvedLayer,
    Source,
    StoreOpened,
)
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from services.coordinator.board import Board
from services.coordinator.intents import End
from services.coordinator.low_water import LowWater
from services.coordinator.traces import Traces

LAYERS = 4
STORES = 200
FIRST_LOOK = 10_000


def resident() -> float:
    """MB that this process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _digest(*names: object) -> str:
    return f"sha256:{sha256(repr(names).encode()).hexdigest()}"


class Fold:
    """A log that is folded as it is written, and kept nowhere."""

    def __init__(self) -> None:
        self.board = Board()
        self._low_water = LowWater(self.board)
        self._traces = Traces(self.board)
        self._revision = 1
        for store in range(STORES):
            self.say(StoreOpened(store=f"s{store}", incarnation="i"))

    def say(self, event: Event) -> None:
        sequence = self.board.position + 1
        self._traces.note(Recorded(sequence, 0.0, "", event, trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
        intents = self.board.apply(event, sequence)
        self._low_water.note(event)
        if sequence % 1000 == 0:
            self._low_water.look()
        for intent in intents:
            if isinstance(intent, End):
                self.say(intent.ending)

    def flight(self, number: int) -> None:
        kind, store = ("new", "there", "failing")[number % 3], f"s{number % STORES}"
        of = identify(f"registry.example/app-{number}:1", store=store)
        self.say(PullRequested(store=store, reference=of.reference))
        about = {"store": store, "reference": of.reference, "flight": of.flight, "opened": self.board.position}
        layers = tuple(_layer(number, depth, there=kind == "there") for depth in range(LAYERS))
        source = Source("registry.example", f"app-{number}")
        resolved = PullResolved(
            **about, platform="linux/amd64", source=source, digest=layers[0].blob.digest, manifest=layers[0].blob,
            config=layers[0].blob, layers=layers, recorded=kind == "there", revision=self._next(),
        )  # fmt: skip
        self.say(resolved)
        if kind == "there":
            return
        for event in self._work(store, layers, source, fails=kind == "failing"):
            self.say(event)
        if kind == "new":
            self.say(PullRecorded(**about, revision=self._next()))

    def _work(self, store: str, layers: tuple[ResolvedLayer, ...], source: Source, *, fails: bool) -> Iterator[Event]:
        for layer in layers:
            blob, chain = layer.blob.digest, layer.chain_id
            revision = self._next()
            yield BlobClaimed(store=store, digest=blob, revision=revision, holder="c")
            yield LayerClaimed(store=store, chain_id=chain, revision=revision, holder="c")
            if fails:
                yield BlobFailed(
                    store=store, digest=blob, revision=revision, source=source, concerns="key", code="x", message="y"
                )
            else:
                yield BlobFetched(store=store, digest=blob, size=1, revision=revision)
            yield LayerUnpacked(store=store, chain_id=chain, diff_id=layer.diff_id, revision=revision)

    def _next(self) -> int:
        self._revision += 1
        return self._revision


def _layer(number: int, depth: int, *, there: bool) -> ResolvedLayer:
    name = (number, depth)
    blob = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar+gzip", digest=Digest(_digest("b", *name)), size=1)
    diff, chain = DiffID(_digest("d", *name)), ChainID(_digest("c", *name))
    return ResolvedLayer(blob=blob, diff_id=diff, chain_id=chain, fetched=there, unpacked=there)


def soak(flights: int) -> list[Row]:
    fold, rows = Fold(), []
    looks = sorted({min(flights, FIRST_LOOK), flights // 10, flights})
    start = time.perf_counter()
    for number in range(1, flights + 1):
        fold.flight(number)
        if number in looks:
            took = time.perf_counter() - start
            rows.append({
                "what": "soak", "flights": number, "events": fold.board.position, "keys": len(fold.board.waits),
                "in flight": len(fold.board.flights), "rss": round(resident(), 1), "seconds": round(took, 1),
            })  # fmt: skip
            print(*(f"{name} {value:,}" for name, value in rows[-1].items() if name != "what"), sep="   ", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    rows = soak(given.flights)
    print(f"grown by {rows[-1]['rss'] - rows[0]['rss']:.1f} MB since the first {rows[0]['flights']:,} flights")
    if given.keep:
        keep(given.keep, rows)


if __name__ == "__main__":
    main()

"""Calls that containerd makes with a lock held, on a node with 5,000 snapshots: `./dev bench snapshotter`.

2,000 layers of the store (fifty images of forty) and 3,000 containers upon them; one gateway without a bus; a client that
asks one call after another, so that times are those of a call from end to end. Of the collector's list it is the whole walk.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.empty_pb2 import Empty
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from pullonce.store.content import open_store
from pullonce.store.layout import Layout, link_to_tree
from pullonce.store.snapshots import Snapshot
from schemas.oci import ChainID, DiffID, Digest
from services.gateway.protocols import snapshots_pb2 as pb
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.records import REF, Kind, Record, name_of
from services.gateway.snapshotter.state import Change, SnapshotterState

IMAGES, DEPTH, CONTAINERS = 50, 40, 3000
LIMIT_MS = 5.0
_PATH = "/containerd.services.snapshots.v1.Snapshots"


def chain(*numbers: int) -> ChainID:
    return ChainID(f"sha256:{hashlib.sha256(repr(numbers).encode()).hexdigest()}")


def fill(home: Path) -> list[list[ChainID]]:
    """A store with layers, each held for containerd, and records of everything; the layers of each image, bottom first."""
    content = open_store(home / "stores" / "default")
    layout, layers, now = Layout(content.root), Layers(content), time.time_ns()
    images = [[chain(image, depth) for depth in range(DEPTH)] for image in range(IMAGES)]
    records = []
    for stack in images:
        for below, each in zip([ChainID(""), *stack], stack, strict=False):
            layout.tree(each).mkdir()
            layout.snapshot(each).mkdir()
            layout.link(each).symlink_to(link_to_tree(each))
            told = Snapshot(chain_id=each, diff_id=DiffID(each), blob=Digest(each), parent=below, entries=10, size=1000)
            layout.record(each).write_bytes(msgspec.json.encode(told))
            parent = name_of(below) if below else ""
            record = Record(
                name=name_of(each), kind=Kind.COMMITTED, parent=parent, labels={REF: each}, created=now, updated=now,
                chain_id=each, reference="127.0.0.1:1/a@" + stack[0],
            )  # fmt: skip
            layers.hold(record)
            records.append(record)
    place = home / "gateway" / "default"
    for number in range(1, CONTAINERS + 1):
        (place / "snapshots" / str(number) / "fs").mkdir(parents=True)
        (place / "snapshots" / str(number) / "work").mkdir()
        top = name_of(images[number % IMAGES][-1])
        made = Record(
            name=f"k8s.io/{number}/box-{number}", kind=Kind.ACTIVE, parent=top, created=now, updated=now, directory=number
        )  # fmt: skip
        records.append(made)

    async def write() -> None:
        state = SnapshotterState(place / "snapshots.db")
        state.open()
        await state.write(Change(put=records))
        state.close()

    asyncio.run(write())
    return images


class Calls:
    """One client of the gateway."""

    def __init__(self, socket: Path) -> None:
        self._channel = Channel(path=str(socket))
        self.times: dict[str, list[float]] = {}

    async def call(self, what: str, method: str, request: Any, said: Any = Empty) -> None:
        """One call, whose time is kept; one that is refused is an answer too."""
        kind = UnaryStreamMethod if method == "List" else UnaryUnaryMethod
        ask: Callable[[Any], Awaitable[Any]] = kind(self._channel, f"{_PATH}/{method}", type(request), said)  # type: ignore[assignment]
        began = time.perf_counter()
        try:
            await ask(request)
        except GRPCError:
            pass
        self.times.setdefault(what, []).append((time.perf_counter() - began) * 1e3)

    def close(self) -> None:
        self._channel.close()


async def measure(socket: Path, images: list[list[ChainID]], rounds: int) -> dict[str, list[float]]:
    calls = Calls(socket)
    for number in range(rounds):
        stack = images[number % IMAGES]
        top, key = name_of(stack[-1]), f"k8s.io/{10_000 + number}/new"
        labels = {REF: str(stack[-1])}
        prepared = pb.PrepareSnapshotResponse
        await calls.call(
            "Prepare, a container on 40 layers", "Prepare", pb.PrepareSnapshotRequest(key=key, parent=top), prepared
        )
        known = pb.PrepareSnapshotRequest(key=f"{key}-x", parent=name_of(stack[-2]), labels=labels)
        await calls.call("Prepare, a layer that is there", "Prepare", known, prepared)
        wanted = pb.ListSnapshotsRequest(filters=[f'labels."{REF}"=={stack[-1]},parent=="{name_of(stack[-2])}"'])
        await calls.call("List, the one that was promised", "List", wanted, pb.ListSnapshotsResponse)
        view = pb.ViewSnapshotRequest(key=f"{key}-view", parent=top)
        await calls.call("View", "View", view, pb.ViewSnapshotResponse)
        update = pb.UpdateSnapshotRequest(info=pb.Info(name=key, labels={"a": str(number)}))
        await calls.call("Update", "Update", update, pb.UpdateSnapshotResponse)
        await calls.call("Commit", "Commit", pb.CommitSnapshotRequest(key=key, name=f"{key}-layer"))
        await calls.call("Remove, a view", "Remove", pb.RemoveSnapshotRequest(key=f"{key}-view"))
        await calls.call("Remove, a layer", "Remove", pb.RemoveSnapshotRequest(key=f"{key}-layer"))
        if number % 20 == 0:
            await calls.call("List, all (the collector's walk)", "List", pb.ListSnapshotsRequest(), pb.ListSnapshotsResponse)
    calls.close()
    return calls.times


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=300)
    options.add_argument("--place", help="a directory on the disk to measure on")
    chosen = options.parse_args()
    rounds = chosen.rounds
    with tempfile.TemporaryDirectory(prefix="snap-", dir=chosen.place) as directory:
        home = Path(directory)
        images = fill(home)
        socket = home / "run" / "snapshots.sock"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PULLONCE_")}
        environ |= {"PULLONCE_HOME": str(home), "PULLONCE_NATS_URL": "nats://127.0.0.1:1"}
        began = time.perf_counter()
        gateway = subprocess.Popen([sys.executable, "-m", "services.gateway"], env=environ, stderr=subprocess.DEVNULL)
        try:
            while not socket.exists():
                time.sleep(0.01)
            print(f"{IMAGES * DEPTH} layers, {CONTAINERS} containers; ready after {time.perf_counter() - began:.2f} s")
            time.sleep(2.0)  # it looks at all layers once when it starts
            times = asyncio.run(measure(socket, images, rounds))
        finally:
            gateway.terminate()
            gateway.wait()
    print(f"{'call':36} {'n':>5} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}  over {LIMIT_MS:g} ms")
    for what, taken in times.items():
        taken.sort()
        over = sum(1 for each in taken if each > LIMIT_MS)
        p99 = taken[int(len(taken) * 0.99) - 1]
        print(f"{what:36} {len(taken):5} {taken[len(taken) // 2]:8.2f} {p99:8.2f} {taken[-1]:8.2f}  {over}")


if __name__ == "__main__":
    main()

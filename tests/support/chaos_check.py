"""What must hold after any trouble: every request has its one ending, and nothing in a store is damaged or half-done."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import random
import stat
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pullonce.bus.ports import Recorded
from pullonce.client import Client, connect
from pullonce.oci.digest import chain_ids
from pullonce.pulling.identity import identify_request
from schemas.events import BlobFetched, LayerUnpacked, PullCompleted, PullFailed, PullRequested
from schemas.oci import DiffID
from tests.support.images import Image, Layer, image, layer
from tests.support.layers import entry, tar


@dataclass
class Verdict:
    """What a stretch of the log says."""

    requests: int = 0
    unanswered: list[int] = field(default_factory=list)
    """Sequences of requests that no ending covers."""
    twice: list[tuple[str, int]] = field(default_factory=list)
    """Flights, by name and opening, with more than one ending."""
    failed: list[PullFailed] = field(default_factory=list)
    counted: int = 0
    """Requests that the good endings say they answered."""
    executions: Counter[str] = field(default_factory=Counter)
    """Transfers a blob and unpacks a layer, by digest or ChainID."""
    found: int = 0
    """Orders that were carried out where another had done the work already."""

    @property
    def extra(self) -> int:
        """Transfers and unpacks that had been done before."""
        return self.executions.total() - len(self.executions)


def judge(records: Iterable[Recorded]) -> Verdict:
    """Read a stretch of the log."""
    verdict = Verdict()
    requested: list[tuple[str, int]] = []
    endings: list[PullCompleted | PullFailed] = []
    for recorded in records:
        match recorded.event:
            case PullRequested() as request:
                requested.append((identify_request(request).flight, recorded.sequence))
            case PullCompleted() | PullFailed() as ending:
                endings.append(ending)
            case BlobFetched(digest=name, reused=False):
                verdict.executions[name] += 1
            case LayerUnpacked(chain_id=name, reused=False):
                verdict.executions[name] += 1
            case BlobFetched() | LayerUnpacked():
                verdict.found += 1
    covered: dict[str, int] = {}
    for ending in endings:
        covered[ending.flight] = max(covered.get(ending.flight, 0), ending.covers)
    verdict.requests = len(requested)
    verdict.unanswered = [sequence for flight, sequence in requested if covered.get(flight, 0) <= sequence]
    stored = Counter((ending.flight, ending.opened) for ending in endings)
    verdict.twice = [flight for flight, times in stored.items() if times > 1]
    verdict.failed = [ending for ending in endings if isinstance(ending, PullFailed)]
    verdict.counted = sum(ending.sharing.requests for ending in endings if isinstance(ending, PullCompleted))
    return verdict


async def read_log(url: str, start: int = 1) -> list[Recorded]:
    """Everything that is in the log now, from a sequence on."""
    async with connect(url, patience=20) as client:
        return await read_on(client, start)


async def read_on(client: Client, start: int = 1) -> list[Recorded]:
    """The same over a client that is there."""
    found: list[Recorded] = []
    last = await client.last_sequence()
    if last < start:
        return found
    done = asyncio.Event()

    def take(recorded: Recorded) -> None:
        found.append(recorded)
        if recorded.sequence >= last:
            done.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(client.watch(take, start=start))
        await done.wait()
        watch.cancel()
    return found


# -- images whose trees are known ----------------------------------------------------------------------------------------


def stack(dice: random.Random, count: int, size: int = 300_000) -> list[bytes]:
    """Tars of layers with a bit of everything, no two alike, bottom first."""
    return [_tar(dice, number, size) for number in range(count)]


def _tar(dice: random.Random, number: int, size: int) -> bytes:
    top = f"layer-{dice.getrandbits(40):x}"
    # The lowest one brings what those above take away: a whiteout of nothing is nothing.
    gone = [entry(f".wh.gone-{number}")] if number else [entry(f"gone-{each}") for each in range(1, 10)]
    return tar(
        entry(top, "dir"),
        entry(f"{top}/big", content=dice.randbytes(size)),
        entry(f"{top}/again", "hardlink", linkname=f"{top}/big"),
        entry(f"{top}/link", "symlink", linkname="big"),
        entry(f"{top}/run", content=b"#!/bin/sh\n", mode=0o4755),
        *(entry(f"{top}/small-{each}", content=dice.randbytes(each)) for each in range(20)),
        *gone,
    )


def picture(tars: Sequence[bytes]) -> Image:
    """The image of a stack."""
    return image([_packed(each) for each in tars])


def _packed(content: bytes) -> Layer:
    return layer(content, "zstd" if content[-1] % 2 else "gzip")


def trees(tars: Sequence[bytes]) -> dict[str, bytes]:
    """ChainID → tar, for each layer of a stack."""
    names = chain_ids(DiffID(f"sha256:{hashlib.sha256(each).hexdigest()}") for each in tars)
    return dict(zip(names, tars, strict=True))


# -- what lies on the disk -------------------------------------------------------------------------------------------------


def damage(store: Path, expected: dict[str, bytes]) -> list[str]:
    """What is wrong with a store, in lines for people: blobs that are not their digest, snapshots that are not their layer.

    Args:
        expected: ChainID → tar of every snapshot that must be there.
    """
    found = [f"blob {blob.name}" for blob in (store / "blobs" / "sha256").iterdir() if _sha256(blob) != blob.name]
    for chain_id, content in expected.items():
        tree = store / "snapshots" / chain_id.replace(":", "-") / "fs"
        if not tree.parent.joinpath("snapshot.json").exists():
            found.append(f"snapshot {chain_id} is not there")
        else:
            found += [f"snapshot {chain_id}: {line}" for line in _differences(tree, content)]
    return found


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _differences(tree: Path, content: bytes) -> list[str]:
    lines, names = [], set()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            name = member.name.replace(".wh.", "")
            names.add(name)
            if not _same(archive, member, tree / name):
                lines.append(f"{name} is not what the layer says")
    there = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    return lines + [f"{name}: only one of both has it" for name in sorted(there ^ names)]


def _same(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    if ".wh." in member.name:
        return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    if member.issym():
        return stat.S_ISLNK(status.st_mode) and os.fspath(path.readlink()) == member.linkname
    if stat.S_IMODE(status.st_mode) != member.mode or int(status.st_mtime) != member.mtime:
        return False
    if member.isdir():
        return stat.S_ISDIR(status.st_mode)
    source = archive.extractfile(member)
    return source is not None and path.read_bytes() == source.read()

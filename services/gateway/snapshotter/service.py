"""The calls of `containerd.services.snapshots.v1.Snapshots`.

Those that containerd makes under its locks (Prepare, View, Commit, Update, Remove, List) answer from memory and write a row;
the one wait among them is Prepare's, a few seconds at most, until it is known that an image has the layer that is asked for.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path

import msgspec
from google.protobuf.empty_pb2 import Empty
from grpclib.const import Status

from pullonce.errors import PullonceError
from pullonce.failpoints import reach
from services.gateway.protocols import snapshots_pb2 as pb
from services.gateway.rpc.serving import CallError, metadata
from services.gateway.snapshotter import records as kept
from services.gateway.snapshotter.answers import Encoded, info, relabelled
from services.gateway.snapshotter.arrivals import Withdrawn
from services.gateway.snapshotter.filters import FilterInvalid, asks_for, passes
from services.gateway.snapshotter.labels import LabelInvalid, root_owner, target_of
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.offers import Offers
from services.gateway.snapshotter.records import Kind, Record
from services.gateway.snapshotter.store import Records
from services.gateway.snapshotter.trees import Trees
from services.gateway.snapshotter.unlisting import Unlisting

log = logging.getLogger(__name__)

_LEASE = "containerd-lease"
"""Comes with every call of a pull."""
_BATCH = 500
"""Records in one answer of a stream: some hundred kilobytes."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the service works with."""

    records: Records
    layers: Layers
    offers: Offers
    unlisting: Unlisting
    trees: Trees


class Snapshotter:
    """One method a call, under its name."""

    def __init__(self, parts: Parts) -> None:
        self._records = parts.records
        self._table = parts.records.table
        self._layers = parts.layers
        self._offers = parts.offers
        self._unlisting = parts.unlisting
        self._trees = parts.trees
        self._encoded = Encoded()
        self._background: set[asyncio.Task[None]] = set()

    # -- making --------------------------------------------------------------------------------------------------------

    async def Prepare(self, request: pb.PrepareSnapshotRequest) -> pb.PrepareSnapshotResponse:
        """A directory for a container or a layer; ALREADY_EXISTS where the store has, or will have, the layer itself."""
        labels = dict(request.labels)
        target = target_of(labels)
        if target is not None and await self._offers.offer(target, request.parent, labels):
            raise CallError(Status.ALREADY_EXISTS, f"the snapshot {target} is the store's own")
        record = await self._make(request.key, request.parent, labels, Kind.ACTIVE)
        return pb.PrepareSnapshotResponse(mounts=[self._mount(record)])

    async def View(self, request: pb.ViewSnapshotRequest) -> pb.ViewSnapshotResponse:
        """The same, read-only."""
        record = await self._make(request.key, request.parent, dict(request.labels), Kind.VIEW)
        return pb.ViewSnapshotResponse(mounts=[self._mount(record)])

    async def _make(self, key: str, parent: str, labels: dict[str, str], kind: Kind) -> Record:
        below = await self._parent(parent)
        try:
            owner = root_owner(labels)
        except LabelInvalid as exc:
            raise CallError(Status.INVALID_ARGUMENT, str(exc)) from None
        if not key or not self._records.reserve(key):
            raise CallError(Status.ALREADY_EXISTS, f"there is a snapshot {key} already")
        number, now = self._records.next_directory(), time.time_ns()
        record = Record(
            name=key, kind=kind, parent=parent, labels=labels, created=now, updated=now, directory=number
        )  # fmt: skip
        tree = self._trees.of(below) if below is not None else None
        # To its end, whoever leaves meanwhile: a directory and a record belong together.
        await _to_its_end(self._made(record, tree, owner))
        return record

    async def _made(self, record: Record, below: Path | None, owner: tuple[int, int] | None) -> None:
        work = record.kind == Kind.ACTIVE
        try:
            await asyncio.to_thread(self._records.places.make, record.directory, work=work, below=below, owner=owner)
            reach("container.made")
            await self._records.put(record, sync=True)
            reach("container.recorded")
        finally:
            self._records.release(record.name)

    async def _parent(self, name: str) -> Record | None:
        """The record that something is to be made upon; None where it stands for itself.

        Raises:
            Refused: it is not there, not committed, or a layer of it is gone.
        """
        if not name:
            return None
        record = await self._offers.find(name)
        if record is None:
            raise CallError(Status.NOT_FOUND, f"there is no snapshot {name}")
        if record.kind != Kind.COMMITTED:
            raise CallError(Status.INVALID_ARGUMENT, f"the snapshot {name} is not committed, so nothing can stand upon it")
        await self._whole([record, *self._table.below(name)])
        return record

    async def _whole(self, records: list[Record]) -> None:
        if gone := await self._offers.missing(records):
            why = f"the layer {gone.chain_id} of {gone.reference or 'an image'} is gone from the store"
            raise CallError(Status.UNAVAILABLE, f"{why}; it is being brought again, try again in a moment")

    async def Commit(self, request: pb.CommitSnapshotRequest) -> Empty:
        """What containerd unpacked into a directory is a layer now."""
        record = self._found(request.key)
        if record.kind != Kind.ACTIVE:
            raise CallError(Status.FAILED_PRECONDITION, f"the snapshot {request.key} is not active")
        if request.parent and record.parent and request.parent != record.parent:
            raise CallError(Status.FAILED_PRECONDITION, f"the snapshot {request.key} stands upon {record.parent} already")
        if not request.name or not self._records.reserve(request.name):
            raise CallError(Status.ALREADY_EXISTS, f"there is a snapshot {request.name} already")
        now = time.time_ns()
        made = Record(
            name=request.name, kind=Kind.COMMITTED, parent=record.parent or request.parent,
            labels={**record.labels, **request.labels}, created=now, updated=now, directory=record.directory,
        )  # fmt: skip
        await _to_its_end(self._put_reserved(made, record.name))
        self._later(self._count(made))  # containerd asks for it later, and waits for this call with its database locked
        return Empty()

    async def _put_reserved(self, record: Record, instead_of: str) -> None:
        try:
            await self._records.put(record, drop=(instead_of,), sync=True)
            reach("layer.committed")
        finally:
            self._records.release(record.name)

    # -- removing ------------------------------------------------------------------------------------------------------

    async def Remove(self, request: pb.RemoveSnapshotRequest) -> Empty:
        """containerd does not want it any more. Files go later."""
        record = self._found(request.key)
        if self._table.has_children(record.name):
            raise CallError(Status.FAILED_PRECONDITION, f"other snapshots stand upon {record.name}")
        await _to_its_end(self._removed(record))
        return Empty()

    async def _removed(self, record: Record) -> None:
        if reference := await self._records.remove(record):
            self._unlisting.add(reference)
        if record.directory:
            self._later(self._records.empty_trash())

    async def Cleanup(self, request: pb.CleanupRequest) -> Empty:
        """Files of what was removed are gone when this returns."""
        await self._records.empty_trash()
        return Empty()

    # -- looking -------------------------------------------------------------------------------------------------------

    async def Stat(self, request: pb.StatSnapshotRequest) -> pb.StatSnapshotResponse:
        """What is known of a snapshot. A layer that is on its way is waited for here, where containerd holds no lock."""
        record = await self._offers.find(request.key)
        if record is None:
            raise CallError(Status.NOT_FOUND, f"there is no snapshot {request.key}")
        if record.chain_id:
            with contextlib.suppress(Withdrawn):  # statistics look at what its puller gave up, and need no layer
                await self._offers.there(record, puller=_LEASE in metadata.get())
                self._trees.learn([record])
        return pb.StatSnapshotResponse(info=info(record))

    async def Mounts(self, request: pb.MountsRequest) -> pb.MountsResponse:
        """How a container's snapshot, or a view, is mounted."""
        record = self._found(request.key)
        if record.kind == Kind.COMMITTED:
            raise CallError(Status.FAILED_PRECONDITION, f"the snapshot {request.key} is committed: prepare one upon it")
        await self._whole(self._table.below(record.name))
        below = self._table.below(record.name)
        work, tree = record.kind == Kind.ACTIVE, self._trees.of(below[0]) if below else None
        owner = root_owner(record.labels)
        # Harmless where all is there; a power cut may have taken a directory whose record it left.
        if not self._records.places.path(record.directory).is_dir():
            make = self._records.places.make
            await asyncio.to_thread(make, record.directory, work=work, below=tree, owner=owner)
        return pb.MountsResponse(mounts=[self._mount(record)])

    async def Update(self, request: pb.UpdateSnapshotRequest) -> pb.UpdateSnapshotResponse:
        """Change labels: all of them, or those that the mask names."""
        record = self._found(request.info.name)
        labels = relabelled(record.labels, dict(request.info.labels), list(request.update_mask.paths))
        made = msgspec.structs.replace(record, labels=labels, updated=time.time_ns())
        await _to_its_end(self._records.put(made, sync=False))
        return pb.UpdateSnapshotResponse(info=info(made))

    async def List(self, request: pb.ListSnapshotsRequest) -> AsyncIterator[bytes]:
        """All records, or those that pass a filter. What containerd's collector finds here and does not know, it removes."""
        found = self._listed(list(request.filters))
        for start in range(0, len(found), _BATCH):
            yield self._encoded.response(found[start : start + _BATCH])
            await asyncio.sleep(0)  # others are answered between two parts
        if not request.filters and len(self._encoded) > len(found):
            self._encoded.forget([record.name for record in found])

    def _listed(self, filters: list[str]) -> list[Record]:
        wanted = asks_for(filters)
        if wanted is not None and (record := self._table.layer(*wanted)) is not None:
            return [record]
        try:
            passing = passes(filters)
        except FilterInvalid as exc:
            raise CallError(Status.INVALID_ARGUMENT, str(exc)) from None
        return [record for record in self._table if passing(record)]

    async def Usage(self, request: pb.UsageRequest) -> pb.UsageResponse:
        """What a snapshot takes of the disk, those below it aside."""
        record = self._found(request.key)
        if record.chain_id:
            there = self._layers.get(record.chain_id)
            return pb.UsageResponse(size=there.size, inodes=there.entries) if there else pb.UsageResponse()
        usage = record.usage or await self._counted(record)
        return pb.UsageResponse(size=usage.size, inodes=usage.inodes)

    async def _counted(self, record: Record) -> kept.Usage:
        return await asyncio.to_thread(self._records.places.usage, record.directory)

    async def _count(self, record: Record) -> None:
        """Note what a committed one takes: it does not change any more. What overlayfs worked in goes."""
        await asyncio.to_thread(self._records.places.drop_work, record.directory)
        usage = await self._counted(record)
        present = self._table.get(record.name)
        if present is not None and present.directory == record.directory:
            await self._records.put(msgspec.structs.replace(present, usage=usage), sync=False)

    # -- records -------------------------------------------------------------------------------------------------------

    def _found(self, name: str) -> Record:
        record = self._table.get(name)
        if record is None:
            raise CallError(Status.NOT_FOUND, f"there is no snapshot {name}")
        return record

    def _mount(self, record: Record) -> pb.Mount:
        made = self._trees.mount(record, self._table.below(record.name))
        return pb.Mount(type=made.type, source=made.source, options=made.options)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(_quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _to_its_end(work: Coroutine[None, None, None]) -> None:
    """Do something that must not stop half-way, whoever leaves meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _quietly(work: Coroutine[None, None, None]) -> None:
    """Work that nobody waits for; what it cannot do is done another time."""
    try:
        await work
    except (OSError, PullonceError) as exc:
        log.warning("what nobody waits for could not be done: %s", exc)

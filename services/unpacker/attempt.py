"""One attempt at one layer: unpacked in a worker, completed by what lies below, committed."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pullonce.store.content import ContentStore
from pullonce.store.growing import SMALL
from pullonce.store.snapshots import Snapshot, Snapshots
from pullonce.worker.stopwatch import turn
from schemas.orders import UnpackLayer
from services.unpacker.durability import Durability
from services.unpacker.failures import disk, failure, is_of_the_disk, nobody
from services.unpacker.news import News, Watch
from services.unpacker.progress import UnpackProgress
from services.unpacker.staging import Draft, Staging
from services.unpacker.tar.invalid import LayerError
from services.unpacker.threads import to_its_end
from services.unpacker.tree.finish import complete, links_passed_through, needs_layers_below, needs_only_root
from services.unpacker.tree.outcome import Outcome
from services.unpacker.tree.rights import Rights
from services.unpacker.waiting import DiskWaits
from services.unpacker.work.messages import Failed, Job, Unpacked, WorkLimits
from services.unpacker.work.workers import Pool, Preempted, Stuck, WorkerProcess

_MAX_PASSES = 40
"""Times a layer is unpacked to find links of layers below that lead to further ones: as many as Linux follows."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What an unpacker works with."""

    content: ContentStore
    snapshots: Snapshots
    staging: Staging
    pool: Pool
    news: News
    announcer: UnpackProgress
    durability: Durability
    limits: WorkLimits


class Attempt:
    """The making of one snapshot. Leaves nothing behind but the snapshot: call `discard` in the end.

    Args:
        watch: tells of the order's blob.
    """

    def __init__(self, order: UnpackLayer, parts: Tools, watch: Watch) -> None:
        self._order = order
        self._parts = parts
        self._watch = watch
        self._waiting = DiskWaits(parts.content, parts.snapshots, parts.news)
        self._draft: Draft | None = None
        self._verified = False
        """The blob was seen to be there."""
        self._links_below: dict[bytes, bytes] = {}

    async def run(self) -> tuple[Snapshot, bool]:
        """The snapshot, and whether it was made here; False where somebody else was first.

        Raises:
            Permanent, Retryable: see `Unpacker.unpack_layer`.
        """
        draft, outcome, lower = await self._ready()
        try:
            snapshot, made = await to_its_end(self._finish, draft, outcome, lower)
        finally:  # it may be there although nobody waits any more; whoever is woken looks
            self._parts.durability.want()
            self._parts.news.tell("layer", self._order.chain_id)
        return snapshot, made

    async def draft(self) -> tuple[Draft, Snapshot]:
        """The finished tree, and what is to be said of it; nothing is visible yet. Raises as `run`."""
        draft, outcome, lower = await self._ready()
        return draft, await to_its_end(self._complete, draft, outcome, lower)

    async def _ready(self) -> tuple[Draft, Outcome, list[Path] | None]:
        """The tree as it is unpacked on its own, its blob verified, and the trees below that are to complete it: those are
        there. None: there is nothing to complete."""
        order = self._order
        self._verified = self._parts.content.has(order.blob.digest)
        if not self._verified:
            if order.blob.size <= SMALL:
                await self._waiting.blob(order, self._watch)
                self._verified = True
            else:
                self._parts.announcer.say(order, "waiting")
                await self._waiting.bytes(order, self._watch)
        draft, outcome = await self._unpack()
        if not self._verified:  # it was not there yet when it began to be unpacked
            turn("blob")
            await self._waiting.blob(order, self._watch)
        if not needs_layers_below(outcome):
            return draft, outcome, None
        turn("parent")
        await self._waiting.parent(order)
        turn("complete")
        return await self._resolved(draft, outcome)

    def discard(self) -> None:
        """Have what is left of the attempt removed."""
        if self._draft is not None:
            self._parts.staging.give_back(self._draft)
            self._draft = None

    async def _unpack(self) -> tuple[Draft, Outcome]:
        """Unpack the layer on its own. A fault counts only when it is found in the verified blob."""
        while True:
            self.discard()
            self._verified = verified = self._verified or self._parts.content.has(self._order.blob.digest)
            self._draft = draft = self._parts.staging.draft()
            try:
                answer = await self._in_worker(draft)
            except Preempted:
                answer = Failed("preempted")
                verified = False
            except Stuck as exc:
                answer = Failed(f"{exc}; PULLONCE_UNPACK_PATIENCE gives it longer", code="unpack.stuck")
            if isinstance(answer, Unpacked):
                return draft, answer.outcome
            if verified or is_of_the_disk(answer):
                raise failure(answer, self._order, draft.place)
            await self._waiting.blob(self._order, self._watch)

    async def _in_worker(self, draft: Draft) -> Unpacked | Failed:
        order, parts = self._order, self._parts
        job = Job(
            tree=str(draft.tree),
            trash=str(draft.trash),
            blob=str(parts.content.blob_path(order.blob.digest)),
            ingest=str(parts.content.ingest_path(order.blob.digest)),
            size=order.blob.size,
            verified=self._verified,
            media_type=order.blob.media_type,
            diff_id=order.diff_id,
            opaque=parts.staging.opaque,
            links_below=self._links_below,
            limits=parts.limits,
        )
        turn("slot")
        async with parts.pool.worker() as worker:
            turn("unpack")
            worker.on_progress = lambda done: parts.announcer.say(order, "unpacking", done=done)
            if self._verified:
                return await worker.carry_out(job)
            carrying = asyncio.ensure_future(worker.carry_out(job))
            feeding = asyncio.ensure_future(self._feed(worker))
            try:
                await asyncio.wait((carrying, feeding), return_when=asyncio.FIRST_COMPLETED)
                if not carrying.done():
                    await feeding
                return await carrying
            finally:
                carrying.cancel()
                feeding.cancel()
                await asyncio.gather(carrying, feeding, return_exceptions=True)

    async def _feed(self, worker: WorkerProcess) -> None:
        """Tell the worker when there may be more to read; raises Permanent where there never will be."""
        while True:
            await self._watch.changed()
            verified = self._parts.content.has(self._order.blob.digest)
            if self._watch.failed and not verified:
                raise nobody(f"the blob {self._order.blob.digest} did not come", "unpack.aborted")
            worker.grown(verified=verified)

    async def _resolved(self, draft: Draft, outcome: Outcome) -> tuple[Draft, Outcome, list[Path]]:
        """The layer, unpacked anew where its names pass through links of the layers below, and the trees of these."""
        try:
            for _ in range(_MAX_PASSES):
                lower = await self._lower(outcome)
                found = await to_its_end(links_passed_through, outcome, lower) if outcome.assumed else {}
                if not found:
                    return draft, outcome, lower
                self._links_below = self._links_below | found
                draft, outcome = await self._unpack()
            raise LayerError("its names pass through a loop of symbolic links in the layers below")
        except LayerError as exc:
            raise failure(Failed(str(exc), code=exc.code), self._order, draft.place) from exc
        except OSError as exc:
            raise disk(exc, self._order, draft.place) from exc

    # -- in a thread, in one go: to hand a layer of nearly nothing from thread to thread costs more than the layer ------------

    def _finish(self, draft: Draft, outcome: Outcome, lower: list[Path] | None) -> tuple[Snapshot, bool]:
        """Complete a layer and make it visible; False where somebody else was first."""
        snapshot = self._complete(draft, outcome, lower)
        turn("commit")
        return snapshot, self._parts.staging.commit(draft, snapshot)

    def _complete(self, draft: Draft, outcome: Outcome, lower: list[Path] | None) -> Snapshot:
        """Complete a layer by the committed ones below; what is to be said of it."""
        if lower is None:
            return self._describe(outcome)
        rights = Rights(opaque=self._parts.staging.opaque)
        try:
            outcome.size += complete(draft.tree, lower, outcome, rights, most=self._parts.limits.size)
        except LayerError as exc:
            raise failure(Failed(str(exc), code=exc.code), self._order, draft.place) from exc
        except OSError as exc:
            raise disk(exc, self._order, draft.place) from exc
        outcome.left_out = dict(Counter(outcome.left_out) + rights.left_out)
        return self._describe(outcome)

    async def _lower(self, outcome: Outcome) -> list[Path]:
        """The trees below, from the top down, as far as they matter: the root of the first is like all below it."""
        parent = self._order.parent
        if not parent:
            return []
        if needs_only_root(outcome):
            return [self._parts.snapshots.path(parent)]
        return [self._parts.snapshots.path(each) for each in await self._waiting.chain(self._order)]

    def _describe(self, outcome: Outcome) -> Snapshot:
        order = self._order
        return Snapshot(
            chain_id=order.chain_id,
            diff_id=order.diff_id,
            blob=order.blob.digest,
            parent=order.parent,
            entries=outcome.entries,
            size=outcome.size,
            left_out=outcome.left_out,
            userxattr=self._parts.staging.opaque.startswith(b"user."),
        )

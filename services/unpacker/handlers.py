"""Carries out `unpack.layer`: wait for bytes, unpack on its own, complete by what lies below, commit, announce.

Nothing is believed about a layer before its blob is verified: a fault found earlier is looked for again in the verified bytes.
Nothing but the lack of bytes is waited for in a worker process.
"""

import logging

from pullonce.errors import Permanent, Retryable
from pullonce.store.snapshots import Snapshot
from pullonce.worker.stopwatch import timed
from schemas.events import Event, LayerFailed, LayerUnpacked
from schemas.orders import UnpackLayer
from services.unpacker.attempt import Attempt, Tools

log = logging.getLogger(__name__)


class Unpacker:
    """The handler of one store's `unpack.layer` orders."""

    def __init__(self, parts: Tools) -> None:
        self._parts = parts
        self.parts = parts
        self.content = parts.content
        self.pool = parts.pool

    @timed("bytes")
    async def unpack_layer(self, order: UnpackLayer) -> list[Event]:
        """Make the snapshot of a layer. Repetition finds it made.

        Raises:
            Permanent: the layer is at fault (`layer.invalid`, `layer.escapes`, `layer.too-large`, `media.unsupported`,
                `diffid.mismatch`), the disk is (`disk.full` and the like), or the blob or the layer below did not come
                (`unpack.aborted`, `unpack.stalled`; concerns nobody).
            Retryable: a worker process died.
        """
        snapshots = self._parts.snapshots
        if snapshots.has(order.chain_id):
            return [_unpacked(order, snapshots.get(order.chain_id), reused=True)]
        with self._parts.news.watch("blob", order.blob.digest) as watch:
            attempt = Attempt(order, self._parts, watch)
            try:
                snapshot, made = await attempt.run()
            finally:
                attempt.discard()
        self._parts.announcer.say(order, "committed", done=order.blob.size)
        log.info(
            "layer unpacked",
            extra={"digest": order.blob.digest, "chain_id": order.chain_id, "entries": snapshot.entries, "made": made}
            | ({"left_out": snapshot.left_out} if snapshot.left_out else {}),
        )
        return [_unpacked(order, snapshot, reused=not made)]

    def give_up(self, order: UnpackLayer, error: Permanent | Retryable) -> Event:
        """The fact that a layer will not be unpacked under this order."""
        self._parts.announcer.say(order, "aborted", error=str(error))
        return LayerFailed(
            store=order.store,
            chain_id=order.chain_id,
            blob=order.blob.digest,
            revision=order.revision,
            concerns=error.concerns,
            code=error.code,
            message=str(error),
        )

    def retrying(self, order: UnpackLayer, error: Permanent | Retryable, delay: float) -> None:
        """Say that an attempt will be repeated."""
        self._parts.announcer.say(order, "retrying", error=str(error), retry_in=delay)


def _unpacked(order: UnpackLayer, snapshot: Snapshot, *, reused: bool) -> LayerUnpacked:
    return LayerUnpacked(
        store=order.store,
        chain_id=order.chain_id,
        diff_id=order.diff_id,
        revision=order.revision,
        reused=reused,
        entries=snapshot.entries,
        size=snapshot.size,
        left_out=snapshot.left_out,
    )

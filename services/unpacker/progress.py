"""Say how an unpack is getting on. A worker reports at a bounded rate; what it says is passed on as it comes."""

import asyncio
from collections.abc import Callable
from typing import Literal

import msgspec

from pullonce.bus.ports import Signals
from pullonce.store.snapshots import Snapshots
from schemas.oci import ChainID, Digest
from schemas.orders import UnpackLayer
from schemas.progress import LayerProgress
from schemas.routing import progress_subject

State = Literal["waiting", "unpacking", "committed", "retrying", "aborted"]


class UnpackProgress:
    """Sends progress messages behind the back of the work: nothing waits for one to be sent."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._queue: asyncio.Queue[LayerProgress] = asyncio.Queue()

    def say(self, order: UnpackLayer, state: State, *, done: int = 0, error: str = "", retry_in: float = 0.0) -> None:
        """Where an order stands."""
        self._queue.put_nowait(
            LayerProgress(
                store=order.store,
                chain_id=order.chain_id,
                blob=order.blob.digest,
                state=state,
                done=done,
                size=order.blob.size,
                error=error,
                retry_in=retry_in,
            )
        )

    async def run(self) -> None:
        """Send what is said. For ever."""
        while True:
            progress = await self._queue.get()
            await self._signals.publish(progress_subject(progress), msgspec.json.encode(progress))


def on_disk(snapshots: Snapshots, store: str) -> Callable[[str], LayerProgress | None]:
    """What the disk says of a ChainID: that the snapshot is there; None where it is not."""

    def look(name: str) -> LayerProgress | None:
        chain_id = ChainID(name)
        if not snapshots.has(chain_id):
            return None
        return LayerProgress(store=store, chain_id=chain_id, blob=Digest(snapshots.get(chain_id).blob), state="committed")

    return look

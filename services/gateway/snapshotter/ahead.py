"""Holds of the layers that containerd is about to ask for, since it asked for one of their image: all written together.

Alone, a hold costs two syncs of the disk, and containerd asks for one layer after another: an image of forty tiny ones waited
longer for their holds than for their content. A hold that nobody has asked for after a while is let go. One that a crash leaves
becomes a record at the next start, as every promise does, and containerd's collector removes what it does not know.
"""

import asyncio
import logging
from collections.abc import Iterable

from pullonce.errors import PullonceError
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.records import Record

log = logging.getLogger(__name__)

KEEP = 60.0
"""Seconds that a hold waits to be asked for."""


class Ahead:
    """The holds of one store's snapshotter that no record stands for yet."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._written: dict[str, asyncio.Task[bool]] = {}
        """Name of a record to come → the writing of its hold."""
        self._going: dict[str, asyncio.Task[None]] = {}
        """The same → its removal."""

    def begin(self, records: Iterable[Record]) -> None:
        """Write the holds of some records to come, beside whatever else there is to do."""
        new = [each for each in records if each.name not in self._written and each.name not in self._going]
        if not new:
            return
        names = [each.name for each in new]
        task = asyncio.create_task(self._write(new))
        self._written.update(dict.fromkeys(names, task))
        asyncio.get_running_loop().call_later(KEEP, self._give_up, names, task)

    async def take(self, name: str) -> bool:
        """Whether a hold is on the disk for a record that is about to be made; from now on it is the record's."""
        task = self._written.pop(name, None)
        if task is not None:
            return await asyncio.shield(task) and self._layers.is_held(name)
        if (going := self._going.get(name)) is not None:
            await asyncio.shield(going)  # else it could remove what is written next
        return False

    async def close(self) -> None:
        """Let go of all that nobody has asked for."""
        for task in set(self._written.values()):
            self._give_up([name for name, each in self._written.items() if each is task], task)
        await asyncio.gather(*self._going.values())

    async def _write(self, records: list[Record]) -> bool:
        try:
            await asyncio.to_thread(self._layers.hold_all, records)
        except (PullonceError, OSError) as exc:
            log.info("holds cannot be written ahead: each is when it is asked for", extra={"why": str(exc)})
            return False
        return True

    def _give_up(self, names: Iterable[str], task: asyncio.Task[bool]) -> None:
        left = [name for name in names if self._written.get(name) is task]
        if not left:
            return
        for name in left:
            del self._written[name]
        going = asyncio.create_task(self._let_go(left, task))
        self._going.update(dict.fromkeys(left, going))
        going.add_done_callback(lambda _: [self._going.pop(name) for name in left])

    async def _let_go(self, names: list[str], written: asyncio.Task[bool]) -> None:
        await asyncio.shield(written)
        try:
            for name in names:
                await asyncio.to_thread(self._layers.let_go, name)
        except (PullonceError, OSError) as exc:
            log.warning("holds that nobody asked for stay until the next start: %s", exc)

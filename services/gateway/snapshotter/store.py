"""The snapshotter's own view: records in memory and on the disk, changed together.

What changes a record is written before memory shows it, so nobody is told of what a crash could undo.
"""

import asyncio
import logging
from pathlib import Path

from pullonce.errors import PullonceError
from pullonce.failpoints import reach
from services.gateway.snapshotter.ahead import Ahead
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.places import Places
from services.gateway.snapshotter.records import Record
from services.gateway.snapshotter.state import Change, SnapshotterState
from services.gateway.snapshotter.table import RecordTable

log = logging.getLogger(__name__)


class Records:
    """All records of one store's snapshotter. `open` first, `close` last.

    Args:
        place: directory of the snapshotter's own files.
    """

    def __init__(self, place: Path, layers: Layers) -> None:
        self.table = RecordTable()
        self.places = Places(place / "snapshots")
        self.unlisting: list[str] = []
        """References that an earlier process had still to take off the list."""
        self.ahead = Ahead(layers)
        self._layers = layers
        self._state = SnapshotterState(place / "snapshots.db")
        self._last = 0
        self._taken: set[str] = set()

    @property
    def state(self) -> SnapshotterState:
        return self._state

    async def open(self) -> None:
        """Read what there is, and make whole what a crash or a wiped store has left.

        Raises:
            StateUnusable, HoldUnreadable, Permanent: it cannot be read, or the disk refuses.
        """
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self._last = self.places.open()
        records, self.unlisting = self._state.open()
        for record in records:
            self.table.put(record)
            self._last = max(self._last, record.directory)
        # A promise made just before a crash is on the store's disk and may be missing here; one whose store was wiped is
        # missing there.
        held = {record.name: record for record in self._layers.held()}
        self._adopted = [record for name, record in held.items() if self.table.get(name) is None]
        for record in self._adopted:
            self.table.put(record)
        for record in self.table:
            if record.chain_id and record.name not in held:
                self._layers.hold(record)
        known = {record.directory for record in self.table}
        self.places.sweep(known, self._last)

    async def close(self) -> None:
        """Write what waits, and let go."""
        await self.ahead.close()
        await asyncio.to_thread(self._state.close)

    async def settle(self) -> None:
        """What `open` found is written too, and what it discarded is removed: nobody waits for that."""
        if self._adopted:
            await self._state.write(Change(put=self._adopted))
        await self.empty_trash()

    # -- changes -------------------------------------------------------------------------------------------------------

    def reserve(self, name: str) -> bool:
        """Take a name for a record that is about to be made; False where it is taken. `put` or `release` ends it."""
        if self.table.get(name) is not None or name in self._taken:
            return False
        self._taken.add(name)
        return True

    def release(self, name: str) -> None:
        """Let a reserved name go."""
        self._taken.discard(name)

    def next_directory(self) -> int:
        """A number that no directory has."""
        self._last += 1
        return self._last

    async def put(self, *records: Record, drop: tuple[str, ...] = (), sync: bool) -> None:
        """Add or replace some records, in place of others; raises StateUnusable, and then nothing has changed."""
        await self._state.write(Change(put=records, drop=drop, sync=sync))
        for name in drop:
            self.table.drop(name)
        for record in records:
            self.table.put(record)

    async def hold(self, record: Record) -> bool:
        """Promise a layer of the store under a record; returns whether the layer is there by now.

        Raises:
            Permanent, StateUnusable: the disk refuses; nothing was promised.
        """
        if await self.ahead.take(record.name):
            there = self._layers.has(record.chain_id)
        else:
            there = await asyncio.to_thread(self._layers.hold, record)
        reach("layer.held")
        # The hold says all that the record does and is synced, so nobody waits for the database, which has it too for a store
        # that is wiped.
        self._state.submit(Change(put=[record], sync=False)).add_done_callback(_recorded)
        self.table.put(record)
        return there

    async def remove(self, record: Record) -> str:
        """Remove a record and what it stands for; returns the reference to take off the store's list, or nothing."""
        last = self.table.named_by(record.reference) == 1
        unlist = record.reference if record.listed and last else ""
        await self._state.write(Change(drop=[record.name], unlist=[unlist] if unlist else [], sync=False))
        self.table.drop(record.name)
        reach("removal.recorded")
        if record.chain_id:
            await asyncio.to_thread(self._layers.let_go, record.name)
            reach("removal.unheld")
        if record.directory:
            await asyncio.to_thread(self.places.discard, record.directory)
        return unlist

    async def empty_trash(self) -> None:
        """Remove the directories that were discarded; what the disk refuses is tried again with the next."""
        try:
            await asyncio.to_thread(self.places.empty_trash)
        except (OSError, PullonceError) as exc:
            log.warning("directories of removed snapshots cannot be removed yet: %s", exc)


def _recorded(written: asyncio.Future[None]) -> None:
    if not written.cancelled() and (error := written.exception()):
        log.warning("a layer is held, and its record is missing until the next start: %s", error)
    reach("layer.recorded")

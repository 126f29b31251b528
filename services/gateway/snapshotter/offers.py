"""Whether a layer that containerd wants to unpack is the store's to give, and giving it: held first, then said to be there."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping

from pullonce.errors import PullonceError
from schemas.oci import ChainID
from services.gateway.snapshotter.arrivals import Arrivals, LayerMissing, Resolved
from services.gateway.snapshotter.labels import image_labels, reference_of
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.records import REF, Kind, Record, chain_named, name_of, variant_of
from services.gateway.snapshotter.store import Records

log = logging.getLogger(__name__)


class Offers:
    """The layers of the store, as they are offered to containerd.

    Args:
        connected: whether the bus can be reached now. Without it only what is there already is given.
    """

    def __init__(
        self, records: Records, layers: Layers, arrivals: Arrivals, resolved: Resolved, connected: Callable[[], bool]
    ) -> None:
        self._records = records
        self._layers = layers
        self._arrivals = arrivals
        self._resolved = resolved
        self._connected = connected
        self._offering: dict[tuple[ChainID, str], asyncio.Task[bool]] = {}

    async def offer(self, chain_id: ChainID, parent: str, labels: dict[str, str]) -> bool:
        """Whether a layer above a certain record is there or will be, and is held from now on.

        False tells containerd to unpack it by itself. Of many that ask for one layer at once, one does the work.

        Raises:
            Permanent, StateUnusable: the disk refuses.
        """
        if self._records.table.layer(chain_id, parent) is not None:
            return True
        key = chain_id, parent
        task = self._offering.get(key)
        if task is None:
            task = self._offering[key] = asyncio.create_task(self._offer(chain_id, parent, labels))
            task.add_done_callback(lambda _: self._offering.pop(key, None))
        return await asyncio.shield(task)

    async def _offer(self, chain_id: ChainID, parent: str, labels: dict[str, str]) -> bool:
        below = self._chain_of(parent)
        if below is None:
            return False
        reference = reference_of(labels) or self._resolved.image_of(chain_id)
        listed, layers = False, self._resolved.layers(reference)
        if not self._layers.has(chain_id):
            if not reference or not self._connected():
                return False
            listed = not await asyncio.to_thread(self._layers.is_listed, reference)
            told = await self._arrivals.layers(reference)
            if told is None or told.get(chain_id) != below:
                return False
            layers = told
        elif (there := self._layers.get(chain_id)) is None or there.parent != below:
            return False
        record = self._record(chain_id, parent, {**labels, REF: chain_id}, reference, listed=listed)
        self._hold_ahead(record, layers)
        there_now = await self._records.hold(record)
        if not there_now and not reference:
            # A collector was faster, and nobody knows whose layer it was.
            await self._records.remove(record)
            return False
        return True

    def _hold_ahead(self, record: Record, layers: Mapping[ChainID, ChainID]) -> None:
        """Begin to hold the layers above one that is given: containerd asks for them next."""
        if chain_named(record.name) is None or record.chain_id not in layers:
            return
        stack = list(layers)
        above = stack[stack.index(record.chain_id) + 1 :]
        told = image_labels(record.labels)
        self._records.ahead.begin(
            self._record(each, name_of(layers[each]), {**told, REF: each}, record.reference, listed=record.listed)
            for each in above
            if self._records.table.layer(each, name_of(layers[each])) is None
        )

    def _record(self, chain_id: ChainID, parent: str, labels: dict[str, str], reference: str, *, listed: bool) -> Record:
        name, now = name_of(chain_id), time.time_ns()
        if parent and chain_named(parent) is None:
            name = variant_of(chain_id, hashlib.sha256(parent.encode()).hexdigest()[:16])
        return Record(
            name=name, kind=Kind.COMMITTED, parent=parent, labels=labels, created=now, updated=now, chain_id=chain_id,
            reference=reference, listed=listed,
        )  # fmt: skip

    def _chain_of(self, parent: str) -> ChainID | None:
        """The layer that a parent is; one that containerd unpacked itself is what its label says. None where that is
        unknown."""
        if not parent:
            return ChainID("")
        record = self._records.table.get(parent)
        if record is None or record.kind != Kind.COMMITTED:
            return None
        return record.chain_id or (ChainID(record.labels[REF]) if REF in record.labels else None)

    # -- what was promised ---------------------------------------------------------------------------------------------

    async def find(self, name: str) -> Record | None:
        """The record of a name; one of a layer of the store that was lost is made again from the name."""
        record = self._records.table.get(name)
        chain_id = chain_named(name)
        if record is not None or chain_id is None:
            return record
        there = self._layers.get(chain_id)
        below = there.parent if there is not None else self._resolved.below(chain_id)
        if below is None:
            return None
        parent = name_of(below) if below else ""
        if parent and await self.find(parent) is None:
            return None
        if self._records.reserve(name):
            try:
                made = self._record(chain_id, parent, {REF: chain_id}, self._resolved.image_of(chain_id), listed=False)
                await self._records.hold(made)
                log.warning("a record was lost, and made again from its name", extra={"snapshot": name})
            finally:
                self._records.release(name)
        return self._records.table.get(name)

    async def there(self, record: Record, *, puller: bool = True) -> None:
        """Wait until a layer that was promised is there; see `Arrivals.wait`.

        Raises:
            LayerMissing: it does not come; the message says why.
        """
        if self._layers.has(record.chain_id):
            return
        reference = record.reference or self._resolved.image_of(record.chain_id)
        if not reference:
            raise LayerMissing(
                f"{record.chain_id} is gone from the store, and nobody knows of which image it was: remove the images of "
                "this layer from containerd, and pull them again"
            )
        if not self._connected():
            raise LayerMissing(f"{record.chain_id} of {reference} is not there, and the bus of pullonce does not answer")
        # The store may have been wiped, and the hold with it.
        await asyncio.to_thread(self._layers.make_whole)
        await self._records.hold(record)
        await self._arrivals.wait(reference, record.chain_id, puller=puller)

    async def missing(self, records: list[Record]) -> Record | None:
        """The first of some records whose layer is not there. It begins to be brought again."""
        for record in records:
            if record.chain_id and not self._layers.has(record.chain_id):
                task = asyncio.create_task(self._bring(record))
                task.add_done_callback(lambda done: done.exception())
                return record
        return None

    async def _bring(self, record: Record) -> None:
        try:
            await self.there(record)
        except PullonceError as exc:
            log.warning("a layer is gone and cannot be brought again: %s", exc, extra={"snapshot": record.name})

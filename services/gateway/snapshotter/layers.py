"""The store's side: which layers are there, and the holds by which they stay for containerd. Everything here may block."""

import contextlib
import os
from collections.abc import Sequence

import msgspec

from pullonce.store.content import ContentStore, opened
from pullonce.store.holds import Hold, Holds
from pullonce.store.snapshots import Snapshot, SnapshotMissing, Snapshots
from schemas.oci import ChainID
from services.gateway.snapshotter.records import Record

HOLDER = "containerd"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Layers:
    """The layers of one store, as containerd has them.

    Args:
        content: the store.
    """

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._holds = Holds(content.root)
        self.snapshots = Snapshots(content.root)
        self._seen: dict[ChainID, tuple[str, int, int]] = {}
        """Layers that were there: path, inode and time of their records, which never change. A container has forty of them, and
        looks for each while containerd holds a lock."""

    def has(self, chain_id: ChainID) -> bool:
        """Whether a layer is there."""
        if seen := self._seen.get(chain_id):
            try:
                status = os.stat(seen[0])  # noqa: PTH116
            except OSError:
                self._seen.pop(chain_id, None)
                return False
            if (status.st_ino, status.st_mtime_ns) == seen[1:]:
                return True
        if not self.snapshots.has(chain_id):
            return False
        path = os.fspath(self.snapshots.layout.record(chain_id))
        with contextlib.suppress(OSError):
            status = os.stat(path)  # noqa: PTH116
            self._seen[chain_id] = (path, status.st_ino, status.st_mtime_ns)
        return True

    def get(self, chain_id: ChainID) -> Snapshot | None:
        """What is known of a layer; None where it is not there."""
        try:
            return self.snapshots.get(chain_id)
        except SnapshotMissing:
            return None

    def hold(self, record: Record) -> bool:
        """Promise a layer: from here on it stays once it is there. Returns whether it is there now.

        Raises:
            Permanent: the disk refuses; nothing is promised.
        """
        self._holds.put(_hold(record))
        # Behind the hold, and under the lock: a collector that looked before it has removed the layer by now, or not at all.
        with self._content.images.hold():
            return self.has(record.chain_id)

    def hold_all(self, records: Sequence[Record]) -> None:
        """Promise several layers at once, with as few syncs as that takes. When it returns, `has` says what will stay.

        Raises:
            Permanent: the disk refuses; some may be promised, and others not.
        """
        self._holds.put_all([_hold(record) for record in records])
        with self._content.images.hold():
            pass  # as in `hold`: a collector that looked before the holds were there has ended now

    def is_held(self, name: str) -> bool:
        """Whether the hold of a record is on the disk; a store that is wiped has none."""
        return self._holds.has(HOLDER, name)

    def make_whole(self) -> None:
        """Make what is missing of a store that was wiped; raises Permanent where the disk refuses."""
        opened(self._content.root)

    def let_go(self, name: str) -> None:
        """Drop the hold of a record; raises Permanent where the disk refuses."""
        self._holds.drop(HOLDER, name)

    def held(self) -> list[Record]:
        """The records that were promised, as the store has them.

        Raises:
            HoldUnreadable: one cannot be read.
        """
        return [_decode(hold.note) for hold in self._holds.all(HOLDER)]

    def is_listed(self, reference: str) -> bool:
        """Whether the store lists an image under a reference."""
        return bool(self._content.images.named(reference))


def _hold(record: Record) -> Hold:
    return Hold(
        holder=HOLDER, name=record.name, chain_ids=(record.chain_id,), reference=record.reference,
        note=_encode(record).decode(),
    )  # fmt: skip

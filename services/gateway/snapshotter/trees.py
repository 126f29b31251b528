"""Where the trees of records lie, and how they are mounted as containerd sees them. Of layers it is worked out once."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from schemas.oci import ChainID
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.mounts import Mount, mount_of
from services.gateway.snapshotter.places import Places
from services.gateway.snapshotter.records import Record


class Trees:
    """The trees of one store's snapshotter.

    Args:
        options: of every overlay mount.
        shown: a path as containerd sees it.
    """

    def __init__(self, layers: Layers, places: Places, options: Sequence[str], shown: Callable[[Path], str] = str) -> None:
        self._layers = layers
        self._places = places
        self._options = options
        self._shown = shown
        self._paths: dict[ChainID, str] = {}
        self._userxattr: dict[ChainID, bool] = {}

    def of(self, record: Record) -> Path:
        """The tree of a record, as it is here."""
        if record.chain_id:
            return self._layers.snapshots.path(record.chain_id)
        return self._places.path(record.directory) / "fs"

    def mount(self, record: Record, below: Sequence[Record]) -> Mount:
        """How a container's record, or a view, is mounted upon those below it, from the top down."""
        extra = ["userxattr"] if any(self._is_userxattr(each.chain_id) for each in below if each.chain_id) else []
        own = self._shown(self._places.path(record.directory))
        return mount_of(record, [self._lower(each) for each in below], own, [*self._options, *extra])

    def learn(self, records: Iterable[Record]) -> None:
        """Look at layers now, so that a container which is made of them later need not, with a lock of containerd's held."""
        for record in records:
            if record.chain_id and self._layers.has(record.chain_id):
                self._is_userxattr(record.chain_id)
                self._lower(record)

    def _lower(self, record: Record) -> str:
        known = self._paths.get(record.chain_id) if record.chain_id else None
        if known is None:
            known = self._shown(self.of(record))
            if record.chain_id:
                self._paths[record.chain_id] = known
        return known

    def _is_userxattr(self, chain_id: ChainID) -> bool:
        """Whether a layer was unpacked without privileges, so that its opaque directories are marked in another way."""
        known = self._userxattr.get(chain_id)
        if known is None:
            there = self._layers.get(chain_id)
            known = there is not None and there.userxattr
            if there is not None:
                self._userxattr[chain_id] = known
        return known

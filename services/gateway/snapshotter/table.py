"""All records in memory: every question of containerd is answered from here."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from schemas.oci import ChainID
from services.gateway.snapshotter.records import Kind, Record


class RecordTable:
    """Records by name, with what the calls ask for kept beside them."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records: dict[str, Record] = {}
        self._children: dict[str, set[str]] = defaultdict(set)
        self._layers: dict[tuple[ChainID, str], str] = {}
        self._references: dict[str, set[str]] = defaultdict(set)
        for record in records:
            self.put(record)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, name: str) -> Record | None:
        """The record of a name."""
        return self._records.get(name)

    def put(self, record: Record) -> None:
        """Add a record, or put it in the place of one with the same name."""
        self.drop(record.name)
        self._records[record.name] = record
        if record.parent:
            self._children[record.parent].add(record.name)
        if record.chain_id:
            self._layers[record.chain_id, record.parent] = record.name
        if record.reference:
            self._references[record.reference].add(record.name)

    def drop(self, name: str) -> None:
        """Remove a record; harmless where there is none."""
        record = self._records.pop(name, None)
        if record is None:
            return
        _discard(self._children, record.parent, name)
        _discard(self._references, record.reference, name)
        if self._layers.get((record.chain_id, record.parent)) == name:
            del self._layers[record.chain_id, record.parent]

    def has_children(self, name: str) -> bool:
        """Whether a record is the parent of another."""
        return bool(self._children.get(name))

    def layer(self, chain_id: ChainID, parent: str) -> Record | None:
        """The record of a snapshot of the store above a certain parent."""
        name = self._layers.get((chain_id, parent))
        return self._records[name] if name is not None else None

    def named_by(self, reference: str) -> int:
        """How many records came by the pull of a reference."""
        return len(self._references.get(reference, ()))

    def below(self, name: str) -> list[Record]:
        """The records below one, from the top down, itself aside."""
        found: list[Record] = []
        record = self._records.get(name)
        while record is not None and record.parent:
            record = self._records.get(record.parent)
            if record is not None:
                found.append(record)
        return found

    def counts(self) -> dict[str, int]:
        """How many there are, for people."""
        ours = sum(1 for each in self._records.values() if each.chain_id)
        open_ones = sum(1 for each in self._records.values() if each.kind != Kind.COMMITTED)
        return {"layers": ours, "unpacked_by_containerd": len(self) - ours - open_ones, "containers": open_ones}


def _discard(index: dict[str, set[str]], key: str, name: str) -> None:
    """Take a name out of an index, and the key with its last one."""
    if names := index.get(key):
        names.discard(name)
        if not names:
            del index[key]

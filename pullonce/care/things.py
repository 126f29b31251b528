"""What lies in a store and has a claim key: blobs and snapshots."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from pullonce.store import placing
from pullonce.store.content import ContentStore
from pullonce.store.snapshots import Snapshot, Snapshots
from schemas import subjects
from schemas.events import BlobLost, Event, LayerLost
from schemas.oci import ChainID, Digest


class Thing(NamedTuple):
    """A blob by its digest, or a snapshot (a layer) by its ChainID."""

    kind: Literal["blob", "layer"]
    name: str

    def key(self, store: str) -> str:
        """Its claim key."""
        return subjects.blob_key(store, self.name) if self.kind == "blob" else subjects.layer_key(store, self.name)

    def lost(self, store: str, reason: str) -> Event:
        """The fact that it is not there any more."""
        if self.kind == "blob":
            return BlobLost(store=store, digest=Digest(self.name), reason=reason)
        return LayerLost(store=store, chain_id=ChainID(self.name), reason=reason)


def blob(digest: str) -> Thing:
    return Thing("blob", digest)


def layer(chain_id: str) -> Thing:
    return Thing("layer", chain_id)


class Things:
    """All things of one store, as they lie on its disk."""

    def __init__(self, content: ContentStore) -> None:
        self.content = content
        self.snapshots = Snapshots(content.root)

    def all(self) -> Iterator[Thing]:
        """Every blob and snapshot there is, damaged and doubtful ones included."""
        for directory in _entries(self.content.layout.blobs):
            yield from (blob(f"{directory.name}:{path.name}") for path in directory.iterdir())
        yield from map(layer, placing.all_of(self.content.layout))

    def path(self, thing: Thing) -> Path:
        """Where it lies: a file, or a directory."""
        if thing.kind == "blob":
            return self.content.layout.blob(Digest(thing.name))
        return self.snapshots.directory(ChainID(thing.name))

    def size(self, thing: Thing) -> int:
        """Bytes of a blob, or of the files of a snapshot as its unpacker counted them; 0 where that cannot be told."""
        return self.measure(thing)[0]

    def measure(self, thing: Thing) -> tuple[int, int]:
        """The same, and how many files it is."""
        try:
            if thing.kind == "blob":
                return self.path(thing).stat().st_size, 1
            record = self.content.layout.record(ChainID(thing.name)).read_bytes()
            snapshot = msgspec.json.decode(record, type=Snapshot)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return 0, 0
        return snapshot.size, snapshot.entries

    def move(self, thing: Thing, target: Path) -> bool:
        """Take it out of sight, to a path on the same file system; False where it was not there."""
        if thing.kind == "layer":
            return placing.take_out(self.content.layout, ChainID(thing.name), target)
        try:
            self.path(thing).rename(target)
        except FileNotFoundError:
            return False
        return True


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []

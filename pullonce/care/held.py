"""What a store has promised to others, as the things that must stay for it."""

from collections import defaultdict

import msgspec

from pullonce.care.things import Thing, blob, layer
from pullonce.store.content import ContentStore
from pullonce.store.holds import Holds
from pullonce.store.snapshots import SnapshotMissing, Snapshots
from schemas.oci import ChainID


class HeldThings:
    """The holds of one store. What they need is read anew each time: they come and go."""

    def __init__(self, content: ContentStore) -> None:
        self._holds = Holds(content.root)
        self._snapshots = Snapshots(content.root)

    def things(self) -> dict[Thing, set[str]]:
        """Each thing that is held, with its holders.

        Raises:
            HoldUnreadable: a hold cannot be read.
        """
        found: dict[Thing, set[str]] = defaultdict(set)
        for hold in self._holds.all():
            holder = hold.shown or hold.holder
            for digest in hold.blobs:
                found[blob(digest)].add(holder)
            for chain_id in hold.chain_ids:
                self._stack(chain_id, holder, found)
        return dict(found)

    def holders(self, thing: Thing) -> str:
        """Who holds a thing, for people; empty where nobody does."""
        return " and ".join(sorted(self.things().get(thing, ())))

    def _stack(self, chain_id: ChainID, holder: str, found: dict[Thing, set[str]]) -> None:
        """A snapshot with all below it, as far as the disk tells; what is on its way is kept by the use of its flight."""
        while chain_id and holder not in found[layer(chain_id)]:
            found[layer(chain_id)].add(holder)
            try:
                chain_id = self._snapshots.get(chain_id).parent
            except (SnapshotMissing, msgspec.MsgspecError, UnicodeDecodeError):
                return


def counted(holds: dict[Thing, set[str]], things: set[Thing]) -> dict[str, int]:
    """Holder → how many of some things are held for it."""
    counts: dict[str, int] = defaultdict(int)
    for thing in things:
        for holder in holds.get(thing, ()):
            counts[holder] += 1
    return dict(sorted(counts.items()))

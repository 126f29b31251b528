"""The holds of bundles, and whose each is: directories are copied, moved, and made anew where another was.

A hold goes by the random id of its bundle, which `pullonce.json` has too, so a bundle that was moved takes its hold along. A
copy has the id of the original, whose the hold stays for as long as it lies where the hold says. Bundles of versions before
have no id; their holds go by the directory.
"""

from pathlib import Path

from pullonce.bundle.errors import BundleRefused
from pullonce.bundle.record import Bundle, encode, held_as, read
from pullonce.store.holds import Hold, Holds

HOLDER = "bundles"


class BundleHolds:
    """What one store keeps for bundles.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._holds = Holds(root)

    def all(self) -> list[Bundle]:
        """Every bundle for which something is kept. Raises HoldUnreadable, BundleRefused."""
        return [held_as(hold) for hold in self._holds.all(HOLDER)]

    def at(self, directory: Path) -> list[Bundle]:
        """Those that were in a directory when last seen: more than one, where bundles were moved. Raises as `all` does."""
        return [each for each in self.all() if each.directory == str(directory)]

    def put(self, bundle: Bundle) -> None:
        """Keep a bundle's layers, in place of what was kept under its id. Raises Permanent where the disk refuses."""
        self._holds.put(
            Hold(
                holder=HOLDER, name=_name(bundle), shown=f"the bundle {bundle.directory}", chain_ids=(bundle.chain_id,),
                reference=bundle.reference, note=encode(bundle).decode(),
            )
        )  # fmt: skip

    def is_held(self, bundle: Bundle) -> bool:
        """Whether there is a hold of its id, whosever it is. Raises HoldUnreadable."""
        return self._holds.find(HOLDER, _name(bundle)) is not None

    def is_own(self, bundle: Bundle, place: Path) -> bool:
        """Whether there is a hold that belongs to what lies in a directory now, and not to that of which it is a copy.

        Args:
            bundle: what the directory says it is.

        Raises:
            HoldUnreadable, BundleRefused: the hold does not say whose it is.
        """
        hold = self._holds.find(HOLDER, _name(bundle))
        if hold is None:
            return False
        held = held_as(hold)
        if held.id != bundle.id:
            return False
        return _is_same(held.directory, place) or not _is_at(Path(held.directory), bundle.id)

    def drop_own(self, bundle: Bundle, place: Path) -> None:
        """Let a bundle's layers go, unless the hold is another's. Raises as `is_own` does, and Permanent."""
        if self.is_own(bundle, place):
            self._holds.drop(HOLDER, _name(bundle))

    def drop_at(self, directory: Path) -> bool:
        """Let go what is kept for a directory; False where that is nothing. Raises as `at` does, and Permanent."""
        return sum(self._holds.drop(HOLDER, _name(each)) for each in self.at(directory)) > 0


def _name(bundle: Bundle) -> str:
    return bundle.id or bundle.directory


def _is_same(directory: str, place: Path) -> bool:
    """Whether both are one directory: a link was left where it was before."""
    try:
        return directory == str(place) or place.samefile(directory)
    except OSError:
        return False


def _is_at(directory: Path, wanted: str) -> bool:
    """Whether the bundle of an id lies in a directory. Yes where nobody can tell: a hold kept too long does no harm."""
    try:
        found = read(directory)
    except BundleRefused:
        return True
    return found is not None and found.id == wanted

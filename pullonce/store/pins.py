"""Images that are to stay: `pins.json`, a list of normalised references beside a store's index.

A pin belongs to the reference, not to what it names: it stays when a pull brings a newer image, and when a damaged one is taken
off the list.
"""

from pathlib import Path

import msgspec

from pullonce.store.disk import disk_errors, replace_file
from pullonce.store.layout import Layout


class Pins:
    """The pins of one store.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._path = Layout(root).pins

    def all(self) -> list[str]:
        """The pinned references, sorted."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[str])
        except FileNotFoundError:
            return []

    def set(self, reference: str, *, pinned: bool) -> None:
        """Pin a reference or let it go. Repetition changes nothing. Call it while holding the store's lock.

        Raises:
            Permanent: the disk refuses.
        """
        before = self.all()
        after = sorted({*before, reference} if pinned else {*before} - {reference})
        if after != before:
            with disk_errors(self._path):
                replace_file(self._path, msgspec.json.encode(after) + b"\n")

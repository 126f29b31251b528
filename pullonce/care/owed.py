"""Images that a verification took off the list and that nobody has pulled since: `quarantine/images.json`."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pullonce.store.disk import disk_errors, replace_file
from pullonce.store.images import ImageRecord
from pullonce.store.layout import Layout


class Owed:
    """What one store owes its users. Call everything while holding the store's lock.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._path = Layout(root).owed

    def all(self, listed: Iterable[ImageRecord]) -> list[ImageRecord]:
        """Those that are not listed again, under the same reference and for the same platform."""
        again = set(map(_name, listed))
        return [each for each in self._known() if _name(each) not in again]

    def add(self, images: Iterable[ImageRecord]) -> None:
        """Remember that these were taken off the list; raises Permanent where the disk refuses."""
        self._write([*self._known(), *images])

    def forget(self, images: Iterable[ImageRecord]) -> None:
        """Nobody wants these any more; raises Permanent where the disk refuses."""
        known, gone = self._known(), set(map(_name, images))
        left = [each for each in known if _name(each) not in gone]
        if left != known:
            self._write(left)

    def _known(self) -> list[ImageRecord]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[ImageRecord])
        except FileNotFoundError:
            return []

    def _write(self, images: Iterable[ImageRecord]) -> None:
        newest = {_name(each): each for each in images}
        with disk_errors(self._path):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(list(newest.values())) + b"\n")


def _name(image: ImageRecord) -> tuple[str, str]:
    return image.reference, image.platform

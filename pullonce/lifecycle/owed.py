"""Images that a verification took off the list and that nobody has pulled since: `quarantine/images.json`."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pullonce.disk import disk_errors, replace_file
from pullonce.images import ImageRecord


class Owed:
    """What one store owes its users. Call everything while holding the store's lock.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "quarantine" / "images.json"

    def all(self, listed: Iterable[ImageRecord]) -> list[ImageRecord]:
        """Those that are not listed again, under the same reference and for the same platform."""
        again = {(each.reference, each.platform) for each in listed}
        try:
            known = msgspec.json.decode(self._path.read_bytes(), type=list[ImageRecord])
        except FileNotFoundError:
            return []
        return [each for each in known if (each.reference, each.platform) not in again]

    def set(self, images: Iterable[ImageRecord]) -> None:
        """Remember these; of several under one reference and platform the last.

        Raises:
            Permanent: the disk refuses.
        """
        unique = {(each.reference, each.platform): each for each in images}
        with disk_errors(self._path):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            replace_file(self._path, msgspec.json.encode(list(unique.values())) + b"\n")

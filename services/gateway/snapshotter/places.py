"""The directories of containers and views, and of layers that containerd unpacked itself: `<number>/fs` and `<number>/work`.

A directory is made before its record is written and goes after its record is gone, so what has no record is rubbish: it was
being made, or being removed, when the process died.
"""

import os
import secrets
from collections.abc import Collection
from pathlib import Path

from pullonce.store.disk import disk_errors
from pullonce.store.trees import remove_tree
from pullonce.store.upper import make_upper
from services.gateway.snapshotter.records import Usage


class Places:
    """The directories of one store's snapshotter. Everything here may block.

    Args:
        root: upper and work directories must share a file system, so all lie here.

    Raises:
        Permanent: the disk refuses; from every method.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._trash = root.with_name("trash")

    def open(self) -> int:
        """Make what is missing; returns the highest number that is taken."""
        with disk_errors(self._root):
            for path in (self._root, self._trash):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return max((int(path.name) for path in self._root.iterdir() if path.name.isdecimal()), default=0)

    def path(self, number: int) -> Path:
        """Of one snapshot."""
        return self._root / str(number)

    def make(self, number: int, *, work: bool, below: Path | None, owner: tuple[int, int] | None) -> None:
        """Make a directory. Repeating it is harmless.

        Args:
            work: whether overlayfs will write there.
            below: the tree below; what is written upon it shows the owner, the mode and the time of its root.
            owner: uid and gid of its root instead, on this machine.
        """
        place = self.path(number)
        with disk_errors(place):
            place.mkdir(mode=0o700, exist_ok=True)
            make_upper(place / "fs", below, owner)
            if work:
                (place / "work").mkdir(mode=0o711, exist_ok=True)

    def drop_work(self, number: int) -> None:
        """Remove what overlayfs worked in, of a directory that is written no more."""
        work = self.path(number) / "work"
        if work.is_dir():
            remove_tree(work)

    def discard(self, number: int) -> None:
        """Take a directory out of sight; `empty_trash` removes it. Harmless where there is none."""
        with disk_errors(self._trash):
            try:
                self.path(number).rename(self._trash / f"{number}-{secrets.token_hex(4)}")
            except FileNotFoundError:
                pass

    def empty_trash(self) -> None:
        """Remove what was discarded."""
        with disk_errors(self._trash):
            for path in self._trash.iterdir():
                remove_tree(path)

    def sweep(self, known: Collection[int], up_to: int) -> None:
        """Discard the directories that have no record, of those up to a number: later ones may be being made."""
        with disk_errors(self._root):
            for path in self._root.iterdir():
                if not path.name.isdecimal() or (int(path.name) <= up_to and int(path.name) not in known):
                    path.rename(self._trash / f"{path.name}-{secrets.token_hex(4)}")

    def usage(self, number: int) -> Usage:
        """What one takes. What disappears while it is counted counts or does not; a file with several names counts once."""
        seen: set[tuple[int, int]] = set()
        size = 0
        waiting = [self.path(number) / "fs"]
        while waiting:
            directory = waiting.pop()
            try:
                entries = list(os.scandir(directory))
                statuses = [directory.lstat(), *(entry.stat(follow_symlinks=False) for entry in entries)]
            except (FileNotFoundError, NotADirectoryError):
                continue
            waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            for status in statuses:
                key = (status.st_dev, status.st_ino)
                if key not in seen:
                    seen.add(key)
                    size += status.st_blocks * 512
        return Usage(size, len(seen))

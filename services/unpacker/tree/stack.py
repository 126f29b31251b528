"""Committed layers seen as one tree, as overlayfs shows them, by looking names up: nothing is mounted.

Committed trees do not change, and a name is followed only through what was seen to be a directory of the same layer.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from services.unpacker.tar.invalid import LayerError, shown
from services.unpacker.tree.opened import Opened

_OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque")
_MAX_LINKS = 40


class FoundEntry(NamedTuple):
    """What a name is in the merged tree."""

    tree: Path
    """The topmost layer that has it."""
    path: bytes
    status: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)


class Stack:
    """The merged tree of some layers.

    Args:
        trees: their directories, from the top down.
        opened: through which they are read.
    """

    def __init__(self, trees: Iterable[Path], opened: Opened) -> None:
        self._opened = opened
        self._trees: dict[bytes, list[Path]] = {b"": list(trees)}
        """Directory of the merged tree → the layers whose directories make it up."""

    def lookup(self, path: bytes) -> FoundEntry | None:
        """What a name is, a link itself; None where no layer has it or one above has removed it. Links are not followed."""
        if not path:
            roots = self._trees[b""]
            return FoundEntry(roots[0], b"", self._opened.status(roots[0], b"")) if roots else None
        found, merged = self._look(self._merged(path.rpartition(b"/")[0]), path)
        self._trees[path] = merged
        return found

    def is_below(self, path: bytes) -> bool:
        """Whether a layer below the topmost one has something of this name that could be seen if the topmost had not."""
        return self._look(self._merged(path.rpartition(b"/")[0])[1:], path)[0] is not None

    def names(self, path: bytes) -> set[bytes]:
        """Everything in a directory of the merged tree; nothing where it is none."""
        there: set[bytes] = set()
        gone: set[bytes] = set()
        for tree in self._merged(path):
            for name, status in self._opened.entries(tree, path):
                if name not in there and name not in gone:
                    (gone if is_whiteout(status) else there).add(name)
        return there

    def resolve(self, path: bytes) -> bytes:
        """The same place by a name that passes through no link; what is missing stands for itself.

        Raises:
            LayerError: the name passes through too many links.
        """
        at: list[bytes] = []
        todo = path.split(b"/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del at[-1:]
            elif part and part != b".":
                found = self.lookup(b"/".join([*at, part]))
                if found is None or not found.is_link:
                    at.append(part)
                    continue
                links += 1
                if links > _MAX_LINKS:
                    raise LayerError(f"the name {shown(path)} passes through more than {_MAX_LINKS} symbolic links")
                target = self._opened.target(found.tree, found.path)
                if target[:1] == b"/":
                    at = []
                todo += target.split(b"/")[::-1]
        return b"/".join(at)

    def _merged(self, path: bytes) -> list[Path]:
        """The layers whose directories make up one of the merged tree."""
        missing = []
        while path not in self._trees:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for each in reversed(missing):
            self._trees[each] = self._look(self._trees[each.rpartition(b"/")[0]], each)[1]
        return self._trees[missing[0] if missing else path]

    def _look(self, trees: list[Path], path: bytes) -> tuple[FoundEntry | None, list[Path]]:
        """Look a name up from the top down: the topmost find, and the layers whose directories merge under it."""
        top: FoundEntry | None = None
        merged: list[Path] = []
        for tree in trees:
            try:
                status = self._opened.status(tree, path)
            except FileNotFoundError:
                continue
            if is_whiteout(status):
                break
            if top is None:
                top = FoundEntry(tree, path, status)
            if not stat.S_ISDIR(status.st_mode):
                break
            merged.append(tree)
            if self._is_opaque(tree, path):
                break
        return top, merged

    def _is_opaque(self, tree: Path, path: bytes) -> bool:
        """Whether a directory hides what lower layers have in it."""
        place = b"/proc/self/fd/%d" % self._opened.directory(tree, path)
        for attribute in _OPAQUE:
            try:
                if os.getxattr(place, attribute) == b"y":
                    return True
            except OSError:
                continue
        return False


def is_whiteout(status: os.stat_result) -> bool:
    """Whether overlayfs takes this for the mark of a removal."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0

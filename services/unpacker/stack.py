# ruff: noqa: PTH115
"""Committed layers seen as one tree, as overlayfs shows them, by looking names up: nothing is mounted.

Committed trees do not change, and a name is followed only through what was seen to be a directory of the same layer.
"""

# Names of a layer are bytes, which pathlib does not know.
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from services.unpacker.invalid import LayerError, shown

_OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque")
_MAX_LINKS = 40


class Found(NamedTuple):
    """What a name is in the merged tree."""

    place: bytes
    """Where it lies, in the topmost layer that has it."""
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
    """

    def __init__(self, trees: Iterable[Path]) -> None:
        self._directories: dict[bytes, list[bytes]] = {b"": [os.fsencode(tree) for tree in trees]}

    def lookup(self, path: bytes) -> Found | None:
        """What a name is, a link itself; None where no layer has it or one above has removed it. Links are not followed."""
        if not path:
            roots = self._directories[b""]
            return Found(roots[0], os.lstat(roots[0])) if roots else None
        parent, _, name = path.rpartition(b"/")
        found, merged = _look(self._merged(parent), name)
        self._directories[path] = merged
        return found

    def is_below(self, path: bytes) -> bool:
        """Whether a layer below the topmost one has something of this name that could be seen if the topmost had not."""
        parent, _, name = path.rpartition(b"/")
        return _look(self._merged(parent)[1:], name)[0] is not None

    def names(self, path: bytes) -> set[bytes]:
        """Everything in a directory of the merged tree; nothing where it is none."""
        there: set[bytes] = set()
        gone: set[bytes] = set()
        for directory in self._merged(path):
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name not in there and entry.name not in gone:
                        (gone if is_whiteout(entry.stat(follow_symlinks=False)) else there).add(entry.name)
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
                target = os.readlink(found.place)
                if target[:1] == b"/":
                    at = []
                todo += target.split(b"/")[::-1]
        return b"/".join(at)

    def _merged(self, path: bytes) -> list[bytes]:
        """The directories that make up one of the merged tree."""
        missing = []
        while path not in self._directories:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for each in reversed(missing):
            parent, _, name = each.rpartition(b"/")
            self._directories[each] = _look(self._directories[parent], name)[1]
        return self._directories[missing[0] if missing else path]


def _look(directories: list[bytes], name: bytes) -> tuple[Found | None, list[bytes]]:
    """Look a name up from the top down: the topmost find, and the directories that merge under it."""
    top: Found | None = None
    merged: list[bytes] = []
    for directory in directories:
        place = directory + b"/" + name
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue
        if is_whiteout(status):
            break
        if top is None:
            top = Found(place, status)
        if not stat.S_ISDIR(status.st_mode):
            break
        merged.append(place)
        if is_opaque(place):
            break
    return top, merged


def is_whiteout(status: os.stat_result) -> bool:
    """Whether overlayfs takes this for the mark of a removal."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(directory: bytes) -> bool:
    """Whether a directory hides what lower layers have in it."""
    for attribute in _OPAQUE:
        try:
            if os.getxattr(directory, attribute, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False

"""Say in what two trees differ: names, types, owners, modes, times, attributes, content, and which names are one file."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from services.unpacker.tree.opened import Opened
from services.unpacker.tree.sparse import same_content


def differences(expected: Path, found: Path) -> Iterator[str]:
    """One line for each name in which a tree is not what it should be. Reads both whole, and follows no link."""
    with Opened(own=expected, shared=found.parent) as opened:
        ours, theirs = _Links(), _Links()
        stack = [b""]
        while stack:
            name = stack.pop()
            status = opened.status(expected, name)
            try:
                other = opened.status(found, name)
            except FileNotFoundError:
                yield f"{_shown(name)} is missing"
                continue
            if what := _Pair(expected, found, name, opened).difference(status, other):
                yield f"{_shown(name)} has {what}"
            elif ours.first(name, status) != theirs.first(name, other):
                yield f"{_shown(name)} is a hard link to something else"
            if stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(other.st_mode):
                names, others = ({each for each, _ in opened.entries(tree, name)} for tree in (expected, found))
                yield from (f"{_shown(_join(name, each))} should not be there" for each in sorted(others - names))
                stack += (_join(name, each) for each in sorted(names, reverse=True))


class _Links:
    """The name under which each file with several names was met first."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], bytes] = {}

    def first(self, name: bytes, status: os.stat_result) -> bytes:
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            return name
        return self._names.setdefault((status.st_dev, status.st_ino), name)


class _Pair:
    """One name in both trees."""

    def __init__(self, expected: Path, found: Path, name: bytes, opened: Opened) -> None:
        self._expected = expected
        self._found = found
        self._name = name
        self._opened = opened

    def difference(self, status: os.stat_result, other: os.stat_result) -> str:
        """What of the name differs, its content last; empty where nothing does."""
        if stat.S_IFMT(status.st_mode) != stat.S_IFMT(other.st_mode):
            return "another type"
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == other.st_rdev == 0:
            return ""  # a whiteout: overlayfs looks at nothing else of it, and its time is that of its making
        if status.st_mode != other.st_mode:
            return f"the mode {stat.S_IMODE(other.st_mode):o} instead of {stat.S_IMODE(status.st_mode):o}"
        if (status.st_uid, status.st_gid) != (other.st_uid, other.st_gid):
            return f"the owner {other.st_uid}:{other.st_gid} instead of {status.st_uid}:{status.st_gid}"
        if status.st_mtime_ns != other.st_mtime_ns:
            return "another time"
        if status.st_rdev != other.st_rdev:
            return "another device number"
        if self._attributes(self._expected) != self._attributes(self._found):
            return "other extended attributes"
        if stat.S_ISLNK(status.st_mode):
            targets = (self._opened.target(tree, self._name) for tree in (self._expected, self._found))
            return "" if len(set(targets)) == 1 else "another target"
        if stat.S_ISREG(status.st_mode):
            return "" if status.st_size == other.st_size and self._same_content() else "other content"
        return ""

    def _attributes(self, tree: Path) -> dict[bytes, bytes]:
        try:
            return self._opened.all_attributes(tree, self._name)
        except OSError:
            return {}

    def _same_content(self) -> bool:
        one = self._opened.read(self._expected, self._name)
        try:
            two = self._opened.read(self._found, self._name)
            try:
                return same_content(one, two)
            finally:
                os.close(two)
        finally:
            os.close(one)


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace") if name else "the root"

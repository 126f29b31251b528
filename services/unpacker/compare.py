"""Say in what two trees differ: names, types, owners, modes, times, attributes, content, and which names are one file."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from services.unpacker.sparse import same_content


def differences(expected: Path, found: Path) -> Iterator[str]:
    """One line for each name in which a tree is not what it should be. Reads both whole."""
    ours, theirs = _Links(), _Links()
    stack = [Path()]
    while stack:
        name = stack.pop()
        here, there = expected / name, found / name
        status = here.lstat()
        try:
            other = there.lstat()
        except FileNotFoundError:
            yield f"{_shown(name)} is missing"
            continue
        if what := _difference(here, there, status, other):
            yield f"{_shown(name)} has {what}"
        elif ours.first(name, status) != theirs.first(name, other):
            yield f"{_shown(name)} is a hard link to something else"
        if stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(other.st_mode):
            names, others = {path.name for path in here.iterdir()}, {path.name for path in there.iterdir()}
            yield from (f"{_shown(name / each)} should not be there" for each in sorted(others - names))
            stack += sorted((name / each for each in names), reverse=True)


class _Links:
    """The name under which each file with several names was met first."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], Path] = {}

    def first(self, name: Path, status: os.stat_result) -> Path:
        if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
            return name
        return self._names.setdefault((status.st_dev, status.st_ino), name)


def _difference(here: Path, there: Path, status: os.stat_result, other: os.stat_result) -> str:
    """What of a name differs, its content last; empty where nothing does."""
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
    if _attributes(here) != _attributes(there):
        return "other extended attributes"
    if stat.S_ISLNK(status.st_mode):
        return "" if here.readlink() == there.readlink() else "another target"
    if stat.S_ISREG(status.st_mode):
        return "" if status.st_size == other.st_size and _same_content(here, there) else "other content"
    return ""


def _attributes(path: Path) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    except OSError:
        return {}


def _same_content(here: Path, there: Path) -> bool:
    with open(here, "rb", buffering=0) as one, open(there, "rb", buffering=0) as two:
        return same_content(one.fileno(), two.fileno())


def _shown(name: Path) -> str:
    return os.fsencode(name).decode(errors="backslashreplace") if name.parts else "the root"

"""Directories of trees that lie on the disk, by open descriptors: one name after another from the root, never through a link.

So it does not matter how long a name becomes, and somebody who swaps a directory for a link meanwhile leads nowhere.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from services.unpacker.tree.rights import PRIVATE

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Enough to look up names and to make them, whatever the directory's own mode."""
_MOST = 64
"""Directories that stay open at a time, where the process may have sixteen times as many: several threads do this at once."""


class Opened:
    """`with Opened() as opened`: trees by their paths, in them directories and files by name; some stay open for the block.

    Raises:
        OSError: there is no such directory, or something else in its place; from every method.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[Path, bytes], int] = {}
        """The last ones that were asked for, the latest last."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = _MOST if soft == resource.RLIM_INFINITY else max(8, min(_MOST, soft // 16))

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def directory(self, tree: Path, path: bytes) -> int:
        """Descriptor of a directory, good until the next call."""
        missing: list[bytes] = []
        at = path
        while (fd := self._open.pop((tree, at), -1)) < 0 and at:
            at, _, name = at.rpartition(b"/")
            missing.append(name)
        if fd < 0:
            fd = os.open(tree, _DIRECTORY)
        self._keep(tree, at, fd)
        while missing:
            name = missing.pop()
            fd = os.open(name, _DIRECTORY, dir_fd=fd)
            at = at + b"/" + name if at else name
            self._keep(tree, at, fd)
        return fd

    def _keep(self, tree: Path, path: bytes, fd: int) -> None:
        self._open[tree, path] = fd
        if len(self._open) > self._most:
            os.close(self._open.pop(next(iter(self._open))))

    def at(self, tree: Path, path: bytes) -> tuple[int, bytes]:
        """Descriptor of the directory that a name is in, good until the next call, and what it is called there."""
        parent, _, name = path.rpartition(b"/")
        return self.directory(tree, parent), name or b"."

    @contextmanager
    def held(self, tree: Path, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The same, good for the block."""
        fd, name = self.at(tree, path)
        fd = os.dup(fd)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def forget(self, tree: Path, path: bytes) -> None:
        """A directory was removed."""
        fd = self._open.pop((tree, path), -1)
        if fd >= 0:
            os.close(fd)

    def status(self, tree: Path, path: bytes) -> os.stat_result:
        """What a name is, a link itself."""
        fd, name = self.at(tree, path)
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def target(self, tree: Path, path: bytes) -> bytes:
        """Where a symbolic link leads."""
        fd, name = self.at(tree, path)
        return os.readlink(name, dir_fd=fd)

    def attributes(self, tree: Path, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of a name, a link itself, but for those by which overlayfs steers."""
        fd, name = self.at(tree, path)
        place = by_descriptor(fd, name)
        found: dict[bytes, bytes] = {}
        for each in os.listxattr(place, follow_symlinks=False):
            key = os.fsencode(each)
            if not key.startswith(PRIVATE):
                found[key] = os.getxattr(place, key, follow_symlinks=False)
        return found

    def entries(self, tree: Path, path: bytes) -> list[tuple[bytes, os.stat_result]]:
        """All in a directory, with what each is."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.directory(tree, path))
        try:
            with os.scandir(fd) as found:
                return [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
        finally:
            os.close(fd)


def by_descriptor(fd: int, name: bytes) -> bytes:
    """A path to a name in an open directory, for calls that take no descriptor; its last component is not to be followed."""
    return b"/proc/self/fd/%d/%s" % (fd, name)

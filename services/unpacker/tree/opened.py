"""Directories of trees that lie on the disk, by open descriptors: one name after another from the root, never through a link.

So it does not matter how long a name becomes, and somebody who swaps a directory for a link meanwhile leads nowhere.

An owner who is not root is kept out by the modes of his own files, as root never is: a directory of mode 0, say. They are let
in for the time of the block, as umoci does it, and all that is told of modes is what they were before. One lock keeps others
of this user from taking these modes for the true ones.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from pullonce.store.disk import locked
from services.unpacker.tree.forced import Forced
from services.unpacker.tree.rights import PRIVATE

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Enough to look up names and to make them, whatever the directory's own mode."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST = 64
"""Directories that stay open at a time, where the process may have sixteen times as many: several threads do this at once."""


class Opened:
    """`with Opened() as opened`: trees by their paths, in them directories and files by name; some stay open for the block.

    Args:
        own: the tree that may be written.
        shared: the directory in which the other trees are; held exclusively where modes may have to be changed.

    Raises:
        OSError: there is no such directory, or something else in its place; from every method.
    """

    def __init__(self, *, own: Path | None = None, shared: Path | None = None) -> None:
        self._own = own
        self._stack = ExitStack()
        self._forced = Forced() if os.geteuid() else None
        self._shared = shared if self._forced is not None else None
        self._open: dict[tuple[Path, bytes], int] = {}
        """The last ones that were asked for, the latest last."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = _MOST if soft == resource.RLIM_INFINITY else max(8, min(_MOST, soft // 16))

    def __enter__(self) -> Opened:
        if self._shared is not None:
            self._stack.enter_context(locked(self._shared))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._stack:
            if self._forced is not None:
                self._forced.restore()
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
        self._let_in(tree, fd)  # it may have got its mode since it was opened
        return fd

    def _let_in(self, tree: Path, fd: int) -> None:
        if self._forced is not None:
            self._forced.let_in(fd, 0o700 if tree == self._own else 0o500)

    def _keep(self, tree: Path, path: bytes, fd: int) -> None:
        self._open[tree, path] = fd
        self._let_in(tree, fd)
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
        return self._truly(os.stat(name, dir_fd=fd, follow_symlinks=False))

    def _truly(self, status: os.stat_result) -> os.stat_result:
        return status if self._forced is None else self._forced.truly(status)

    def read(self, tree: Path, path: bytes) -> int:
        """Open a file for reading; the descriptor is the caller's."""
        fd, name = self.at(tree, path)
        try:
            return os.open(name, _READ, dir_fd=fd)
        except PermissionError:
            if self._forced is None:
                raise
            self._forced.let_in_at(name, fd, 0o400)
            return os.open(name, _READ, dir_fd=fd)

    def target(self, tree: Path, path: bytes) -> bytes:
        """Where a symbolic link leads."""
        fd, name = self.at(tree, path)
        return os.readlink(name, dir_fd=fd)

    def attributes(self, tree: Path, path: bytes) -> dict[bytes, bytes]:
        """Extended attributes of a name, a link itself, but for those by which overlayfs steers."""
        return {key: value for key, value in self.all_attributes(tree, path).items() if not key.startswith(PRIVATE)}

    def all_attributes(self, tree: Path, path: bytes) -> dict[bytes, bytes]:
        """All extended attributes of a name, a link itself."""
        fd, name = self.at(tree, path)
        place = by_descriptor(fd, name)
        keys = [os.fsencode(each) for each in os.listxattr(place, follow_symlinks=False)]
        if keys and self._forced is not None:
            self._forced.let_in_at(name, fd, 0o400)
        return {key: os.getxattr(place, key, follow_symlinks=False) for key in keys}

    def entries(self, tree: Path, path: bytes) -> list[tuple[bytes, os.stat_result]]:
        """All in a directory, with what each is."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.directory(tree, path))
        try:
            with os.scandir(fd) as found:
                return [(os.fsencode(entry.name), self._truly(entry.stat(follow_symlinks=False))) for entry in found]
        finally:
            os.close(fd)


def by_descriptor(fd: int, name: bytes) -> bytes:
    """A path to a name in an open directory, for calls that take no descriptor; its last component is not to be followed."""
    return b"/proc/self/fd/%d/%s" % (fd, name)

"""Files of an image by their names in it: links lead where they would in a container, never out of it.

A process that is root outside follows the links of an image here, which anybody may have written. So each part of a path is
opened on its own, links are read and not followed, and `..` ends at the image's root.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pullonce.bundle.errors import ConfigInvalid

_MOST_LINKS = 40
"""As many as Linux follows. Source: path_resolution(7)."""
_LONGEST_FILE = 16 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(root: Path, path: str) -> Iterator[int]:
    """What a path leads to, opened so that it can be looked at and nothing happens.

    Raises:
        OSError: it is not there, or leads nowhere (`ELOOP`).
    """
    walk = _Walk(root)
    try:
        yield walk.to(path)
    finally:
        walk.close()


def read_text(root: Path, path: str) -> str:
    """A small file; empty where there is none.

    Raises:
        ConfigInvalid: it is no ordinary file, or a very large one.
    """
    try:
        with opened(root, path) as found:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigInvalid(f"the image's {path} is no ordinary file, so users and groups cannot be looked up in it")
            if status.st_size > _LONGEST_FILE:
                raise ConfigInvalid(f"the image's {path} has {status.st_size} bytes; expected {_LONGEST_FILE} at most")
            with open(f"/proc/self/fd/{found}", "rb") as file:
                return file.read(_LONGEST_FILE).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        raise ConfigInvalid(f"the image's {path} cannot be read: {exc.strerror}") from exc


def make_place(root: Path, path: str, *, directory: bool, owner: tuple[int, int]) -> bool:
    """Make what has to be there, with all directories above it and above what links lead to; False where it is there.

    Raises:
        ConfigInvalid: what is there, or above it, is of another kind.
        OSError: the disk refuses.
    """
    parts = [part for part in path.split("/") if part]
    made = False
    for depth in range(1, len(parts) + 1):
        last = depth == len(parts)
        made |= _make_one(root, "/".join(parts[:depth]), directory=directory or not last, owner=owner)
    return made


def _make_one(root: Path, path: str, *, directory: bool, owner: tuple[int, int]) -> bool:
    walk = _Walk(root)
    try:
        found = walk.to(path, missing=True, owner=owner)
        if found >= 0:
            if stat.S_ISDIR(os.fstat(found).st_mode) != directory:
                kind = "a directory" if directory else "a file"
                raise ConfigInvalid(f"the image's /{path} is of another kind than what has to be there; expected {kind}")
            return False
        above, name = walk.where
        if directory:
            _make_directory(name, above, owner)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=above))
            os.chown(name, *owner, dir_fd=above, follow_symlinks=False)
        return True
    except OSError as exc:
        if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise ConfigInvalid(f"the image's /{path} is of another kind than what has to be there: {exc.strerror}") from exc
    finally:
        walk.close()


def _make_directory(name: str, above: int, owner: tuple[int, int]) -> None:
    os.mkdir(name, 0o755, dir_fd=above)
    os.chown(name, *owner, dir_fd=above, follow_symlinks=False)


class _Walk:
    """One way through an image."""

    def __init__(self, root: Path) -> None:
        self._directories = [os.open(root, _DIRECTORY)]
        self._last = -1
        self.where = (-1, "")
        """The directory in which the last part was missing, and its name."""

    def close(self) -> None:
        for each in (*self._directories, *([self._last] if self._last >= 0 else [])):
            os.close(each)

    def to(self, path: str, *, missing: bool = False, owner: tuple[int, int] | None = None) -> int:
        """What it leads to; below 0 where only its last part is missing and that may be.

        Args:
            owner: whose the directories are that are made where one above the last part is missing; None: none is made.
        """
        todo, links = list(reversed(path.split("/"))), 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if len(self._directories) > 1:
                    os.close(self._directories.pop())
                continue
            try:
                found = os.open(part, _LOOK, dir_fd=self._directories[-1])
            except FileNotFoundError:
                if missing and not any(each not in ("", ".") for each in todo):
                    self.where = (self._directories[-1], part)
                    return -1
                if owner is None:
                    raise
                _make_directory(part, self._directories[-1], owner)
                found = os.open(part, _LOOK, dir_fd=self._directories[-1])
            target = self._take(found, more=any(each not in ("", ".") for each in todo))
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                todo += reversed(target.split("/"))
                if target.startswith("/"):
                    self._back_to_root()
        return self._last if self._last >= 0 else self._directories[-1]

    def _take(self, found: int, *, more: bool) -> str | None:
        """Go into a directory, stay at a file; of a link: what it says."""
        kind = os.fstat(found).st_mode
        if stat.S_ISDIR(kind):
            self._directories.append(found)
            return None
        if stat.S_ISLNK(kind):
            try:
                return os.readlink("", dir_fd=found)
            finally:
                os.close(found)
        if more:
            os.close(found)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self._last = found
        return None

    def _back_to_root(self) -> None:
        while len(self._directories) > 1:
            os.close(self._directories.pop())

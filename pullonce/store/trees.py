"""Directories that are thrown away: whose they were, and how they go, however deep."""

import errno
import fcntl
import os
import secrets
from pathlib import Path

from pullonce.store.disk import chmod_at

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_abandoned(place: Path) -> bool:
    """Whether the process that a private directory below `staging/` belonged to is gone: it held a lock on it."""
    try:
        fd = os.open(place, _DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def remove_tree(place: Path) -> None:
    """Remove a directory and all in it, however deep: what lies below is moved up first, so that no depth is too much.

    Repeating it is harmless, and so is another process that does the same. A file system that is full, or a quota that is used
    up, may refuse even to rename (btrfs does); then what lies in the way is emptied where it is, until there is room.
    """
    try:
        root = os.open(place, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        names = [b""]
        while names:
            name = names.pop()
            if not name:
                names += _empty(root, root)
                continue
            names += _remove(name, root, root)
        place.rmdir()
    except FileNotFoundError:
        pass
    finally:
        os.close(root)


def _remove(name: bytes, parent: int, root: int) -> list[bytes]:
    """Remove a directory; returns the names at the root of what was in it and is not removed yet."""
    _open_up(name, parent)
    directory = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        moved = _empty(directory, root)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=parent)
    return moved


def _empty(directory: int, root: int) -> list[bytes]:
    """Remove the files of an open directory and move its directories up to the root; returns their names there."""
    moved, directories = [], []
    with os.scandir(directory) as entries:
        names = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if is_directory:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=directory)
    if directory == root:
        return directories
    for name in directories:
        _open_up(name, directory)
        fresh = secrets.token_hex(8).encode()
        try:
            os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=root)
            moved.append(fresh)
        except OSError as exc:
            if exc.errno not in _NO_ROOM:
                raise
            moved += _remove(name, directory, root)
    return moved


def _open_up(name: bytes, parent: int) -> None:
    """Let its owner into a directory; where there is no room for even that, it may well do as it is.

    Never what a link in its place leads to, should somebody have put one there.
    """
    try:
        chmod_at(name, 0o700, dir_fd=parent)
    except OSError as exc:
        if exc.errno not in _NO_ROOM:
            raise

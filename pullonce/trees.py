"""Directories that are thrown away: whose they were, and how they go, however deep."""

import fcntl
import os
import secrets
from pathlib import Path

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

    Repeating it is harmless, and so is another process that does the same.
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
            os.chmod(name, 0o700, dir_fd=root)
            directory = os.open(name, _DIRECTORY, dir_fd=root)
            try:
                names += _empty(directory, root)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=root)
        place.rmdir()
    except FileNotFoundError:
        pass
    finally:
        os.close(root)


def _empty(directory: int, root: int) -> list[bytes]:
    """Remove the files of an open directory and move its directories up to the root; returns their names there."""
    moved = []
    with os.scandir(directory) as entries:
        names = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
        elif directory == root:
            moved.append(name)
        else:
            os.chmod(name, 0o700, dir_fd=directory)
            fresh = secrets.token_hex(8).encode()
            os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=root)
            moved.append(fresh)
    return moved

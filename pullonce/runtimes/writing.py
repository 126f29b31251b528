"""Writes what is to be added: the file whole or not at all, with the mode and the owner that it has, and a copy of what was."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pullonce.runtimes.files import FilesRefused
from pullonce.runtimes.plan import Change
from pullonce.runtimes.tree import RootTree

COPY = ".before-pullonce"
"""How the copy of a file is called beside it; `-2`, `-3` behind it where there are copies already."""


def apply(tree: RootTree, change: Change) -> str:
    """Write one change; returns the path of the copy of what was there, nothing for a new file.

    Raises:
        FilesRefused: the disk refuses, or the file is not any more what it was when the change was made up. Nothing is changed.
    """
    place = tree.place(change.path)
    try:
        if change.before is None:
            _make_directory(place.parent)
        with _alone(place.parent):
            if tree.read(change.path) != change.before:
                raise _changed(change.path)
            if change.before is None:
                _put(place, change.after, None, new=True)
                return ""
            copy = _copied(place, change.before)
            _put(place, change.after, place)
    except FileExistsError:
        raise _changed(change.path) from None
    except OSError as exc:
        raise FilesRefused(f"{change.path} cannot be written: {exc.strerror}") from exc
    return str(copy)


def _changed(path: str) -> FilesRefused:
    return FilesRefused(f"{path} has been changed in this moment; nothing is written, do it again")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other runs of ours out of a directory: of two at once, neither writes over what the other has added."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(place: Path, text: str, like: Path | None, *, new: bool = False) -> None:
    """Give a file its content at once, with the mode, the owner and the attributes of another.

    Raises:
        FileExistsError: it is to be new, and there is one.
    """
    draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            _resemble(descriptor, like)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        if new:
            _link(draft, place)
        else:
            draft.replace(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _resemble(descriptor: int, like: Path | None) -> None:
    if like is None:
        os.fchmod(descriptor, 0o644)
        return
    found = like.stat()
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, found.st_mode & 0o7777)
    with suppress(OSError):  # a file system without attributes
        for name in os.listxattr(like):
            with suppress(OSError):  # one that this user may not set, or that belongs to the other file alone
                os.setxattr(descriptor, name, os.getxattr(like, name))


def _link(draft: Path, place: Path) -> None:
    """Name a draft, unless there is a file of that name."""
    try:
        os.link(draft, place)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links: the lock alone keeps others away.
        if os.path.lexists(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from None
        draft.replace(place)
        return
    draft.unlink()


def _make_directory(directory: Path) -> None:
    """Make what is missing of it, readable for all as configuration is, whatever the umask."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


def _copied(place: Path, text: str) -> Path:
    """Put a copy beside a file, under the first name that is free."""
    number = 1
    while True:
        copy = place.with_name(f"{place.name}{COPY}{f'-{number}' if number > 1 else ''}")
        number += 1
        if os.path.lexists(copy):
            continue
        with suppress(FileExistsError):
            _put(copy, text, place, new=True)
            return copy

"""Writes what is to be added: the file whole or not at all, with the mode and the owner that it has, and a copy of what was."""

import os
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
    if tree.read(change.path) != change.before:
        raise FilesRefused(f"{change.path} has been changed in this moment; nothing is written, do it again")
    try:
        if change.before is None:
            _make_directory(place.parent)
            _put(place, change.after, None)
            return ""
        found = place.stat()
        copy = _free_name(place)
        _put(copy, change.before, found)
        _put(place, change.after, found)
    except OSError as exc:
        raise FilesRefused(f"{change.path} cannot be written: {exc.strerror}") from exc
    return str(copy)


def _put(place: Path, text: str, like: os.stat_result | None) -> None:
    """Give a file its content at once, with the mode and the owner of another."""
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, 0o644 if like is None else like.st_mode & 0o7777)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        draft.replace(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _make_directory(directory: Path) -> None:
    """Make what is missing of it, readable for all as configuration is, whatever the umask."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        each.mkdir()
        each.chmod(0o755)


def _free_name(place: Path) -> Path:
    copy = place.with_name(place.name + COPY)
    number = 1
    while os.path.lexists(copy):
        number += 1
        copy = place.with_name(f"{place.name}{COPY}-{number}")
    return copy

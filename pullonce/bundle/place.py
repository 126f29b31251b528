"""The directory of a bundle: looked at first, then taken and closed to others, and given back as it was."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pullonce import private
from pullonce.bundle.errors import BundleRefused
from pullonce.bundle.record import Access, Bundle, not_ours
from pullonce.store.disk import disk_errors, locked

Taken = tuple[Bundle | None, bool, Access | None]
"""What of a bundle lies in a directory; whether it was made for one; else who got into it before."""


@contextmanager
def taken(place: Path, look: Callable[[Path], Bundle | None]) -> Iterator[Taken]:
    """The directory of a bundle, made where it is missing, closed to others, and nobody else's for the block.

    Args:
        look: tells what of a bundle is there, and refuses what may not become one. What is refused is left as it is.

    Raises:
        BundleRefused: it is no directory, or somebody else's; or as `look` says.
        Permanent: others may write to where it leads, or the disk refuses.
    """
    made = not place.exists()
    if not made and not place.is_dir():
        raise BundleRefused(f"{place} is no directory; expected one that is not there yet, or an empty one")
    if made:
        with disk_errors(place):
            private.directory(str(place), "")
    with held_directory(place):
        known = look(place)
        before = None if made else _access(place)
        if before is not None:
            _close(place, before)
            try:
                look(place)  # again, now that nobody can put in anything more
            except BaseException:
                give_back(place, before)
                raise
        if known is not None:
            made, before = known.made, known.before
        yield known, made, before


def _access(place: Path) -> Access:
    found = place.stat()
    return Access(stat.S_IMODE(found.st_mode), found.st_gid)


def _close(place: Path, before: Access) -> None:
    try:
        with disk_errors(place):
            private.directory(str(place), "")
    except BaseException:
        give_back(place, before)
        raise


def give_back(place: Path, before: Access) -> None:
    """Let those into a directory again who got into it before. Raises Permanent where the disk refuses."""
    with disk_errors(place):
        if place.stat().st_gid != before.group:
            os.chown(place, -1, before.group)
        place.chmod(before.mode)


@contextmanager
def held_directory(place: Path) -> Iterator[None]:
    """Nobody else makes or takes apart this bundle for the block.

    Raises:
        BundleRefused: it belongs to somebody else, or was removed meanwhile.
    """
    try:
        before = place.stat()
    except OSError as exc:
        raise BundleRefused(f"{place} cannot be used: {exc.strerror}") from exc
    if before.st_uid != os.geteuid():
        raise not_ours(place, before.st_uid)
    with locked(place):
        if not place.is_dir() or place.stat().st_ino != before.st_ino:
            raise BundleRefused(f"{place} was removed meanwhile; try again")
        yield

"""Directories and files that belong to one user: who else may look into them, and whose links are followed. Light to import.

A home and what lies in it is closed to others: what a registry gave only against a password lies there, and the password of the
bus. `PULLONCE_GROUP` opens it to one group. Where others could write once, they may have left links that lead a privileged
process elsewhere; those are refused, and so are directories of somebody else's.
"""

import os
import stat

from pullonce.errors import Permanent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_NOT_OURS_ALONE = (
    "/",
    "/home",
    "/root",
    "/srv",
    "/tmp",
    "/var",
    "/var/lib",
    "/var/tmp",
    "/opt",
    "/mnt",
    "/data",
    "/run",
    "/etc",
)


def directory(path: str, group: "str | None" = None) -> None:
    """Make a directory that is missing, and close one that is there to all others.

    Args:
        group: whose members may look into it; empty: nobody; None: whoever may now, but never everybody.

    Raises:
        Permanent: `disk.unsafe`: it leads, or holds a link, to where somebody else decided, or holds a directory of another's;
            `group.unknown`.
        OSError: the disk refuses.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _refuse_link(path)
    make(path, 0o700)
    close(path, group)
    with os.scandir(path) as entries:
        _refuse_foreign(path, entries)


def home(path: str, group: "str | None" = None) -> None:
    """The same for a home. A directory that is obviously not ours alone keeps its mode; what we make in it is closed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    make(path, 0o700)
    if os.path.realpath(path) not in (*_NOT_OURS_ALONE, os.path.realpath(os.path.expanduser("~"))):
        close(path, group)
    with os.scandir(path) as entries:
        _refuse_foreign(path, entries)


def make(path: str, mode: int = 0o755) -> None:
    """Make a directory that is missing. What root makes in another user's directory is that user's: both may run services."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    if (owner := _heir(path)) is not None:
        os.chown(path, *owner, follow_symlinks=False)


def close(path: str, group: "str | None" = None) -> None:
    """Take from everybody but its owner, and the group, what they may do with a directory. One that is another user's stays."""
    found = os.stat(path)
    if found.st_uid != os.geteuid() and os.geteuid():
        return
    mode = stat.S_IMODE(found.st_mode)
    if group is None:
        if mode & 0o007:
            os.chmod(path, 0o700)
        return
    number = group_number(group)
    if number is not None and number != found.st_gid:
        os.chown(path, -1, number)
    wanted = 0o700 if number is None else 0o750
    if mode != wanted:
        os.chmod(path, wanted)


def write(path: str, text: str, group: str = "") -> None:
    """Give a file that nobody else may read its content, whole and at once. What is in its place is replaced, not followed.

    What root writes into another user's directory is that user's.
    """
    draft = f"{path}.{os.getpid()}"
    try:
        os.unlink(draft)
    except FileNotFoundError:
        pass
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if (owner := _heir(path)) is not None:
            os.fchown(descriptor, *owner)
        if (number := group_number(group)) is not None:
            os.fchown(descriptor, -1, number)
            os.fchmod(descriptor, 0o640)
        file.write(text)
    os.replace(draft, path)


def group_number(group: str) -> "int | None":
    """The number of a group that is named, or given as one; None where none is.

    Raises:
        Permanent: `group.unknown`.
    """
    if not group:
        return None
    if group.isdecimal():
        return int(group)
    import grp  # here, since only who opens a home to a group needs it

    try:
        return int(grp.getgrnam(group).gr_gid)
    except KeyError:
        told = f"PULLONCE_GROUP is {group!r}; expected a group of this machine, by name or number"
        raise Permanent(told, code="group.unknown", concerns="nobody") from None


def _heir(path: str) -> "tuple[int, int] | None":
    """Whose a new file or directory is to be, if not ours: root gives it to the user whose directory it lies in."""
    above = os.stat(os.path.dirname(path))
    if os.geteuid() or not above.st_uid or above.st_mode & stat.S_ISVTX:
        return None
    return above.st_uid, above.st_gid


def _refuse_link(path: str) -> None:
    """Refuse a link that somebody else made: neither we nor root."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
        raise _unsafe(path, f"is a link that user {found.st_uid} made")


def _refuse_foreign(path: str, entries: "Iterable[os.DirEntry[str]]") -> None:
    """Refuse links that others made, and directories of others, among what lies in a directory."""
    ours = (0, os.geteuid(), os.stat(path).st_uid)
    for entry in entries:
        if entry.is_symlink():
            _refuse_link(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            owner = entry.stat(follow_symlinks=False).st_uid
            if owner not in ours:
                raise _unsafe(entry.path, f"is a directory of user {owner}")


def _unsafe(path: str, why: str) -> Permanent:
    told = f"{path} {why}; it may lead anywhere: remove it, or give it to user {os.geteuid()}"
    return Permanent(told, code="disk.unsafe", concerns="key")

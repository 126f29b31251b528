"""Whether layers can be unpacked on the file system of a store, found out by doing what unpacking does.

overlayfs marks a removal by a character device 0/0, and a directory that hides by an extended attribute. Not every file system
keeps both: overlayfs itself, on which a container without a volume lies, refuses the device.
"""

import errno
import os
import secrets
import stat
from pathlib import Path

from pullonce.errors import PullonceError

_REFUSED = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_TRUSTED, _USER = b"trusted.overlay.opaque", b"user.overlay.opaque"


class StoreUnsuitable(PullonceError):
    """No layer could be unpacked on the store's file system; the message says why, and what to do."""


def opaque_attribute(place: Path, root: Path) -> bytes:
    """The attribute that marks an opaque directory for whom this process mounts, tried out on a directory of its own.

    A mark of a removal is tried out in it.

    Args:
        root: the store, for the message.

    Raises:
        StoreUnsuitable: the file system keeps neither of the attributes, or no such mark.
        OSError: it is full, read-only or damaged.
    """
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _try_whiteout(fd, place, root)
        for attribute in (_TRUSTED, _USER):
            try:
                os.setxattr(fd, attribute, b"y")
                os.removexattr(fd, attribute)
                return attribute
            except OSError as exc:
                if exc.errno not in _REFUSED:
                    raise
        raise _unsuitable(place, root, "keeps no extended attributes, by which directories that hide others are marked")
    finally:
        os.close(fd)


def _try_whiteout(directory: int, place: Path, root: Path) -> None:
    name = f".whiteout-{secrets.token_hex(8)}"
    try:
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)
    except OSError as exc:
        if exc.errno not in _REFUSED:
            raise
        raise _unsuitable(place, root, "takes no device 0/0, by which removed files are marked") from exc
    os.unlink(name, dir_fd=directory)


def check_suitable(root: Path) -> None:
    """The same for a store that nobody may serve yet: tried where it is, or in the nearest directory above it that is there.

    Raises:
        StoreUnsuitable: nothing could be unpacked there. Other faults are left to whoever meets them.
    """
    above = root
    while not above.exists() and above != above.parent:
        above = above.parent
    probe = above / f".pullonce-{secrets.token_hex(8)}"
    try:
        probe.mkdir(mode=0o700)
    except OSError:
        return
    try:
        opaque_attribute(probe, root)
    except OSError:
        return
    finally:
        probe.rmdir()


def _unsuitable(place: Path, root: Path, why: str) -> StoreUnsuitable:
    kind = file_system(place)
    told = "give it a volume or another file system" if kind == "overlay" else "use another, ext4, xfs or btrfs say"
    return StoreUnsuitable(
        f"no layer can be unpacked in the store {root}: its file system ({kind or 'unknown'}) {why}; {told}, "
        "or set PULLONCE_HOME elsewhere"
    )


def file_system(place: Path) -> str:
    """The type of the file system that a directory lies on, as mounts call it; empty where it is not told. Source: proc(5)."""
    device = f"{os.major(place.stat().st_dev)}:{os.minor(place.stat().st_dev)}"
    try:
        table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""
    found = ""
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == device:
            found = after.split()[0]
    return found

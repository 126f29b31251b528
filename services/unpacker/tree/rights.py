"""What this process may do to files, and what it had to leave out."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from services.unpacker.tar.invalid import LayerError, shown

_NO_SUCH_VALUE = (errno.EINVAL, errno.ERANGE, errno.E2BIG)
_SOME_ROOM = 1 << 20
_NOT_HERE = (errno.EPERM, errno.EACCES, errno.ENOTSUP)
PRIVATE = (b"trusted.overlay.", b"user.overlay.")
"""Attributes by which overlayfs itself steers."""


class Attributes:
    """What an entry says of a directory; applied when nothing more is put into it."""

    __slots__ = ("gid", "mode", "mtime", "uid", "xattrs")

    def __init__(self, mode: int, uid: int, gid: int, mtime: int, xattrs: dict[bytes, bytes] | None = None) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.xattrs = xattrs


class Rights:
    """Gives files their owners, devices and extended attributes as far as it may; counts what it may not.

    An ordinary user makes the same tree without owners, devices and privileged attributes. Root fails where root should not:
    only what the file system cannot hold, or a user namespace forbids, is left out.
    """

    def __init__(self, *, opaque: bytes) -> None:
        self.opaque = opaque
        """Attribute that makes a directory opaque to overlayfs: `trusted.…`, or `user.…` for mounts with `userxattr`."""
        self.user = os.geteuid()
        self.group = os.getegid()
        self.left_out: Counter[str] = Counter()

    def own(self, fd: int, uid: int, gid: int) -> None:
        """Give an open file its owner; -1 is whoever made it."""
        if uid in (-1, self.user) and gid in (-1, self.group):
            return
        if self.user != 0:
            self.left_out["owners"] += 1
            return
        with self._owners_allowed():
            os.fchown(fd, uid, gid)

    def own_at(self, name: bytes, uid: int, gid: int, *, dir_fd: int) -> None:
        """Give a name in an open directory its owner, a link itself; -1 is whoever made it."""
        if uid in (-1, self.user) and gid in (-1, self.group):
            return
        if self.user != 0:
            self.left_out["owners"] += 1
            return
        with self._owners_allowed():
            os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)

    @contextmanager
    def _owners_allowed(self) -> Iterator[None]:
        """Root of a user namespace may not give a file to just anybody, and knows no user that is not mapped."""
        try:
            yield
        except OSError as exc:
            if exc.errno not in (errno.EPERM, errno.EINVAL):
                raise
            self.left_out["owners"] += 1

    def complete(self, fd: int, attributes: Attributes) -> None:
        """Give an open directory its attributes. Owners come first: changing them takes set-id bits and capabilities away."""
        self.own(fd, attributes.uid, attributes.gid)
        if attributes.xattrs and self.user != 0:  # a directory that may not be written takes no attributes of its owner's
            self.attribute(fd, attributes.xattrs)
        os.fchmod(fd, attributes.mode)
        if attributes.xattrs and self.user == 0:
            self.attribute(fd, attributes.xattrs)
        os.utime(fd, ns=(attributes.mtime, attributes.mtime))

    def device(self, name: bytes, mode: int, device: int, *, dir_fd: int) -> bool:
        """Make a device; False where this user may not."""
        try:
            os.mknod(name, mode, device, dir_fd=dir_fd)
        except PermissionError:
            self.left_out["devices"] += 1
            return False
        return True

    def attribute_file(self, fd: int, xattrs: dict[bytes, bytes], mode: int) -> None:
        """The same for an open file of a certain mode: one that may not be written takes no attributes of its owner's."""
        closed = self.user != 0 and not mode & stat.S_IWUSR
        if closed:
            os.fchmod(fd, mode | stat.S_IWUSR)
        self.attribute(fd, xattrs)
        if closed:
            os.fchmod(fd, mode)

    def attribute(self, file: int | str | bytes, xattrs: dict[bytes, bytes]) -> None:
        """Set extended attributes on an open file, or on a path whose last component is not followed.

        Attributes by which overlayfs itself steers are never taken from a layer.

        Raises:
            LayerError: the kernel takes no such value, or the file system none of that size.
        """
        for key, value in xattrs.items():
            if key.startswith(PRIVATE) or not key:
                self.left_out["xattrs"] += 1
                continue
            try:
                if isinstance(file, int):
                    os.setxattr(file, key, value)
                else:
                    os.setxattr(file, key, value, follow_symlinks=False)
            except OSError as exc:
                if exc.errno in _NO_SUCH_VALUE or (exc.errno == errno.ENOSPC and _has_room(file)):
                    what = f"attribute {shown(key)} of {len(value)} bytes is refused: {exc.strerror}"
                    raise LayerError(what) from exc
                if exc.errno not in _NOT_HERE:
                    raise
                self.left_out["xattrs"] += 1


def _has_room(file: int | str | bytes) -> bool:
    """Whether the disk is not full: ext4 says so of an attribute that does not fit into a block, too."""
    try:
        stats = os.statvfs(file)
    except OSError:  # a link that leads nowhere
        return False
    return stats.f_frsize * stats.f_bavail > _SOME_ROOM and (stats.f_ffree > 0 or stats.f_files == 0)

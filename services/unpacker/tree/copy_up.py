"""Copy a file of a layer below into a layer, with all that belongs to it."""

import os
import stat

from pullonce.store.disk import chmod_at
from services.unpacker.tree.opened import Opened, by_descriptor
from services.unpacker.tree.rights import Rights
from services.unpacker.tree.sparse import copy_content
from services.unpacker.tree.stack import FoundEntry

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_up(found: FoundEntry, directory: int, name: bytes, opened: Opened, rights: Rights) -> int:
    """Make a copy of whatever kind but a directory, under a name in an open directory. Returns the bytes of its content."""
    xattrs = opened.attributes(found.tree, found.path)
    if stat.S_ISREG(found.status.st_mode):
        return _copy_file(found, directory, name, opened, rights, xattrs)
    status = found.status
    if stat.S_ISLNK(status.st_mode):
        os.symlink(opened.target(found.tree, found.path), name, dir_fd=directory)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=directory)
    rights.own_at(name, status.st_uid, status.st_gid, dir_fd=directory)
    if not stat.S_ISLNK(status.st_mode):
        chmod_at(name, stat.S_IMODE(status.st_mode), dir_fd=directory)
    rights.attribute(by_descriptor(directory, name), xattrs)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=directory, follow_symlinks=False)
    return 0


def _copy_file(
    found: FoundEntry, directory: int, name: bytes, opened: Opened, rights: Rights, xattrs: dict[bytes, bytes]
) -> int:
    status = found.status
    reader = opened.read(found.tree, found.path)
    try:
        writer = os.open(name, _CREATE, 0o600, dir_fd=directory)
        try:
            copied = copy_content(reader, writer)
            rights.own(writer, status.st_uid, status.st_gid)
            if rights.user == 0:
                os.fchmod(writer, stat.S_IMODE(status.st_mode))
            rights.attribute(writer, xattrs)
            if rights.user != 0:  # a file that may not be written takes no attributes of its owner's
                os.fchmod(writer, stat.S_IMODE(status.st_mode))
            os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
            return copied
        finally:
            os.close(writer)
    finally:
        os.close(reader)

"""Let an owner into files and directories whose modes keep him out, and put the modes back afterwards."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_TIMES = ("st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")
_OTHERS = ("st_blksize", "st_blocks", "st_rdev")
_ANY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Forced:
    """The files whose modes were changed, each by a descriptor of its own until it is put back."""

    def __init__(self) -> None:
        self._changed: dict[tuple[int, int], tuple[int, int]] = {}
        """Device and inode → descriptor, and the mode it had."""

    def let_in(self, fd: int, wanted: int) -> None:
        """Have its owner's mode bits include the wanted ones. What belongs to somebody else stays as it is."""
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode)
        if mode & wanted == wanted or stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid():
            return
        key = (status.st_dev, status.st_ino)
        if key not in self._changed:
            self._changed[key] = (os.dup(fd), mode)
        _chmod(fd, mode | wanted)

    def let_in_at(self, name: bytes, directory: int, wanted: int) -> None:
        """The same for a name in an open directory, and never for what a link in its place leads to."""
        fd = os.open(name, _ANY, dir_fd=directory)
        try:
            self.let_in(fd, wanted)
        finally:
            os.close(fd)

    def truly(self, status: os.stat_result) -> os.stat_result:
        """What was said of a file, with the mode that it really has."""
        changed = self._changed.get((status.st_dev, status.st_ino))
        if changed is None:
            return status
        mode = stat.S_IFMT(status.st_mode) | changed[1]
        return os.stat_result((mode, *tuple(status)[1:]), {name: getattr(status, name) for name in (*_TIMES, *_OTHERS)})

    def restore(self) -> None:
        """Give all of them their modes back, those within others first."""
        while self._changed:
            fd, mode = self._changed.popitem()[1]
            try:
                _chmod(fd, mode)
            finally:
                os.close(fd)


def _chmod(fd: int, mode: int) -> None:
    Path(f"/proc/self/fd/{fd}").chmod(mode)  # the descriptor is one that only names the file: fchmod(2) would refuse it

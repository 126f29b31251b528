"""Directories that are written upon layers. What overlayfs shows of its root, owner, mode, times, is the upper directory's."""

import os
import stat
from pathlib import Path

_OVERLAY = ("trusted.overlay.", "user.overlay.")


def make_upper(tree: Path, below: Path | None, owner: tuple[int, int] | None = None) -> None:
    """Make an upper directory that looks as the root of the tree below it does. Repeating it is harmless.

    Args:
        owner: uid and gid of its root instead, on this machine.

    Raises:
        OSError: the disk refuses.
    """
    tree.mkdir(exist_ok=True)
    like = below.stat() if below is not None else None
    uid, gid = owner or ((like.st_uid, like.st_gid) if like else (-1, -1))
    os.chown(tree, uid, gid)
    tree.chmod(stat.S_IMODE(like.st_mode) if like else 0o755)
    if below is not None and like is not None:
        for name in os.listxattr(below):
            if not name.startswith(_OVERLAY):
                os.setxattr(tree, name, os.getxattr(below, name))
        os.utime(tree, ns=(like.st_atime_ns, like.st_mtime_ns))

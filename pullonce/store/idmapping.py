"""Trees that show other owners than the disk has: idmapped mounts, for containers with a user namespace of their own.

Sources: mount_setattr(2), user_namespaces(7). Linux has them since 5.12, and below overlayfs since 5.19.
"""

import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pullonce.oci.mappings import IdRange, Mappings
from pullonce.store.kernel import checked, libc

_CLONE_NEWUSER = 0x10000000
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_MOUNT_ATTR_IDMAP = 0x00100000
_PR_SET_PDEATHSIG = 1


class _MountAttributes(ctypes.Structure):
    """`struct mount_attr`."""

    _fields_ = (
        ("set", ctypes.c_uint64), ("clear", ctypes.c_uint64), ("propagation", ctypes.c_uint64), ("userns", ctypes.c_uint64),
    )  # fmt: skip


@contextmanager
def user_namespace(mappings: Mappings) -> Iterator[int]:
    """A descriptor of a user namespace in which no process lives.

    Raises:
        OSError: the kernel refuses one, or its ids.
    """
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.write(told, b"y" if libc.unshare(_CLONE_NEWUSER) == 0 else str(ctypes.get_errno()).encode())
            signal.pause()
        finally:
            os._exit(1)
    try:
        answer = os.read(ready, 16)
        if answer != b"y":
            number = int(answer or b"0")
            raise OSError(number, os.strerror(number))
        Path(f"/proc/{child}/uid_map").write_text(_lines(mappings.uids))
        Path(f"/proc/{child}/gid_map").write_text(_lines(mappings.gids))
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
    try:
        yield namespace
    finally:
        os.close(namespace)


def _lines(ranges: Sequence[IdRange]) -> str:
    return "".join(f"{each.container} {each.host} {each.size}\n" for each in ranges)


def clone(target: Path) -> int:
    """A mount that is nowhere, of what is seen at a path; the caller closes it. Raises OSError."""
    return checked(libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(target), _OPEN_TREE_CLONE | os.O_CLOEXEC))


def map_ids(mounted: int, namespace: int) -> None:
    """Have a mount that is nowhere yet show the owners that a user namespace gives them. Raises OSError."""
    wanted = _MountAttributes(set=_MOUNT_ATTR_IDMAP, userns=namespace)
    size = ctypes.sizeof(wanted)
    checked(libc.syscall(_SYS_MOUNT_SETATTR, mounted, b"", _AT_EMPTY_PATH, ctypes.byref(wanted), size))


def attach(mounted: int, target: Path) -> None:
    """Put a mount in place. Raises OSError."""
    checked(libc.syscall(_SYS_MOVE_MOUNT, mounted, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH))

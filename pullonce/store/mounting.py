"""mount(2) and umount2(2) for overlay mounts. Needs root, or a user namespace of one's own."""

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from pullonce.errors import PullonceError
from pullonce.oci.digest import STACK_LIMIT
from pullonce.store.layout import EMPTY_TREE
from pullonce.store.snapshots import Overlay

_PAGE = 4096
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
"""Of mount(2); fsmount(2) knows the same three by the same numbers (MOUNT_ATTR_…)."""
_MNT_DETACH = 2
_CLONE_FS = 0x200
_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 4

_libc = ctypes.CDLL(None, use_errno=True)


class MountFailed(PullonceError):
    """The kernel refused; the message says what was tried and why it failed."""


def mount(overlay: Overlay, target: Path, *, suid: bool = False, dev: bool = False) -> None:
    """Mount an overlay on an existing directory, read-only unless it has an upper directory.

    Args:
        suid: programs in the image that run as another user do so (no `nosuid`).
        dev: its device nodes lead to devices of this machine (no `nodev`).

    Raises:
        MountFailed: this process may not mount, the target is no directory, or the kernel refuses the layers.
    """
    where = target.absolute()
    if len(overlay.names) > STACK_LIMIT:
        limit = f"the kernel mounts {STACK_LIMIT} on each other at most; squash the image"
        raise MountFailed(f"cannot mount {len(overlay.names)} layers on {where}: {limit}")
    empty = overlay.base / EMPTY_TREE
    if empty.name in overlay.names:
        empty.mkdir(exist_ok=True)
    try:
        _within(overlay.base, lambda: _mount(overlay, where, (0 if suid else _MS_NOSUID) | (0 if dev else _MS_NODEV)))
    except OSError as exc:
        hint = "; mounting needs root" if exc.errno == errno.EPERM else ""
        if exc.errno in (errno.EINVAL, errno.ENOSYS) and len(os.fsencode(overlay.data(absolute=False))) >= _PAGE:
            hint = "; Linux before 6.5 mounts no more than fit into a page, some 190"
        raise MountFailed(f"cannot mount {len(overlay.names)} layers on {where}: {exc.strerror}{hint}") from exc


def unmount(target: Path, *, lazily: bool = False) -> None:
    """Undo `mount`.

    Args:
        lazily: detach it now even where it is in use; it goes when its last user does.

    Raises:
        MountFailed: nothing is mounted there, it is in use, or this process may not unmount.
    """
    try:
        _check(_libc.umount2(os.fsencode(target.absolute()), _MNT_DETACH if lazily else 0))
    except OSError as exc:
        raise MountFailed(f"cannot unmount {target}: {exc.strerror}") from exc


def _mount(overlay: Overlay, target: Path, flags: int) -> None:
    data = os.fsencode(overlay.data(absolute=False))
    flags |= 0 if overlay.writable else _MS_RDONLY
    if len(data) < _PAGE:
        _check(_libc.mount(b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(flags), data))
    else:
        _mount_piecewise(overlay, target, flags)


def _mount_piecewise(overlay: Overlay, target: Path, attributes: int) -> None:
    """More layers than fit into a page: one call for each, which Linux knows since 6.5."""
    context = _check(_libc.syscall(_SYS_FSOPEN, b"overlay", 1))
    try:
        for name in overlay.names:
            _configure(context, _SET_STRING, b"lowerdir+", os.fsencode(name))
        for option in overlay.options:
            _configure(context, _SET_FLAG, option.encode(), None)
        if overlay.upper is not None and overlay.work is not None:
            _configure(context, _SET_STRING, b"upperdir", os.fsencode(overlay.upper))
            _configure(context, _SET_STRING, b"workdir", os.fsencode(overlay.work))
        _configure(context, _CREATE, None, None)
        mounted = _check(_libc.syscall(_SYS_FSMOUNT, context, 1, attributes))
    finally:
        os.close(context)
    try:
        _check(_libc.syscall(_SYS_MOVE_MOUNT, mounted, b"", -100, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH))
    finally:
        os.close(mounted)


def _configure(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    _check(_libc.syscall(_SYS_FSCONFIG, context, command, key, value, 0))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _within(directory: Path, act: Callable[[], None]) -> None:
    """Call `act` in a thread that has its own working directory: that of the process belongs to everybody."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _check(_libc.unshare(_CLONE_FS))
            os.chdir(directory)
            act()
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=run, name="mount")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]

"""mount(2) and umount2(2) for overlay mounts. Needs root, or a user namespace of one's own."""

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from pullonce.errors import PullonceError
from pullonce.oci.digest import STACK_LIMIT
from pullonce.oci.mappings import Mappings
from pullonce.store import idmapping
from pullonce.store.kernel import checked, libc
from pullonce.store.layout import EMPTY_TREE
from pullonce.store.snapshots import Overlay, escaped

_PAGE = 4096
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
"""Of mount(2); fsmount(2) knows the same three by the same numbers (MOUNT_ATTR_…)."""
_LONGEST_VALUE = 255
"""Bytes of one value of fsconfig(2)."""
_MS_REMOUNT = 32
_MNT_DETACH = 2
_MS_PRIVATE_BELOW = 0x4000 | 0x40000
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_NO_MAPPING = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class MountFailed(PullonceError):
    """The kernel refused; the message says what was tried and why it failed."""


def mount(
    overlay: Overlay,
    target: Path,
    *,
    suid: bool = False,
    dev: bool = False,
    read_only: bool = False,
    mappings: Mappings | None = None,
) -> None:
    """Mount an overlay on an existing directory, read-only unless it has an upper directory.

    Args:
        suid: programs in the image that run as another user do so (no `nosuid`).
        dev: its device nodes lead to devices of this machine (no `nodev`).
        read_only: nothing can be written though it has an upper directory.
        mappings: owners are shown as a user namespace has them; the upper directory keeps them so.

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
    flags = (0 if suid else _MS_NOSUID) | (0 if dev else _MS_NODEV)
    flags |= _MS_RDONLY if read_only or not overlay.writable else 0
    try:
        if mappings is None:
            _within(overlay.base, lambda: _mount(overlay, where, flags))
        else:
            _mount_mapped(overlay, where, flags, mappings)
    except OSError as exc:
        hint = "; mounting needs root" if exc.errno == errno.EPERM else ""
        if exc.errno in (errno.EINVAL, errno.ENOSYS) and len(os.fsencode(overlay.data(absolute=False))) >= _PAGE:
            hint = _too_many(overlay)
        raise MountFailed(f"cannot mount {len(overlay.names)} layers on {where}: {exc.strerror}{hint}") from exc


def _too_many(overlay: Overlay) -> str:
    """Why a stack whose options do not fit into a page is refused."""
    longest = max((len(os.fsencode(escaped(each))) for each in (overlay.upper, overlay.work) if each is not None), default=0)
    if longest > _LONGEST_VALUE:
        told = f"as many as that need a directory with a shorter path, by {longest - _LONGEST_VALUE} bytes at least"
        return f"; {told}: beside what fits into a page, Linux takes paths of {_LONGEST_VALUE} bytes for what is written"
    return "; Linux before 6.5 mounts no more than fit into a page, some 190"


def shared_options() -> list[str]:
    """Of every overlay mount that is written upon, where the kernel knows them.

    Layers are shared and may come anew, so they are in no index of one upper directory.
    """
    return ["index=off"] if Path("/sys/module/overlay/parameters/index").exists() else []


def make_read_only(target: Path) -> None:
    """Have nobody write to what is mounted there, and to its upper directory, any more.

    Raises:
        MountFailed: nothing is mounted there, or somebody is writing.
    """
    try:
        checked(libc.mount(None, os.fsencode(target.absolute()), None, ctypes.c_ulong(_MS_REMOUNT | _MS_RDONLY), None))
    except OSError as exc:
        raise MountFailed(f"cannot make {target} read-only: {exc.strerror}") from exc


def unmount(target: Path, *, lazily: bool = False) -> None:
    """Undo `mount`.

    Args:
        lazily: detach it now even where it is in use; it goes when its last user does.

    Raises:
        MountFailed: nothing is mounted there, it is in use, or this process may not unmount.
    """
    try:
        checked(libc.umount2(os.fsencode(target.absolute()), _MNT_DETACH if lazily else 0))
    except OSError as exc:
        raise MountFailed(f"cannot unmount {target}: {exc.strerror}") from exc


def _mount(overlay: Overlay, target: Path, flags: int) -> None:
    data = os.fsencode(overlay.data(absolute=False))
    if len(data) < _PAGE:
        checked(libc.mount(b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(flags), data))
    else:
        _mount_piecewise(overlay, target, flags)


def _mount_piecewise(overlay: Overlay, target: Path, attributes: int) -> None:
    """More layers than fit into a page: one call for each, which Linux knows since 6.5."""
    context = checked(libc.syscall(_SYS_FSOPEN, b"overlay", 1))
    try:
        for name in overlay.names:
            _configure(context, _SET_STRING, b"lowerdir+", os.fsencode(name))
        for name, _, value in (option.partition("=") for option in overlay.options):
            _configure(context, _SET_STRING if value else _SET_FLAG, name.encode(), value.encode() or None)
        if overlay.upper is not None and overlay.work is not None:
            _configure(context, _SET_STRING, b"upperdir", os.fsencode(escaped(overlay.upper)))
            _configure(context, _SET_STRING, b"workdir", os.fsencode(escaped(overlay.work)))
        _configure(context, _CREATE, None, None)
        mounted = checked(libc.syscall(_SYS_FSMOUNT, context, 1, attributes))
    finally:
        os.close(context)
    try:
        idmapping.attach(mounted, target)
    finally:
        os.close(mounted)


def _configure(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    checked(libc.syscall(_SYS_FSCONFIG, context, command, key, value, 0))


def _mount_mapped(overlay: Overlay, target: Path, flags: int, mappings: Mappings) -> None:
    """Mount it upon layers that show other owners. These are mounted where nobody else sees them, in a namespace that ends with
    the thread that made it; the overlay holds on to them.

    Raises:
        MountFailed: the file system of the layers, or Linux, cannot show other owners.
        OSError: the kernel refuses.
    """
    found: list[int] = []

    def act(namespace: int) -> None:
        checked(libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE_BELOW), None))
        layers = idmapping.clone(overlay.base)
        try:
            try:
                idmapping.map_ids(layers, namespace)
            except OSError as exc:
                if exc.errno not in _NO_MAPPING:
                    raise
                raise MountFailed(
                    f"the layers below {overlay.base} cannot be shown as another user's ({exc.strerror}): idmapped mounts "
                    "need Linux 5.19, and a file system that has them, such as ext4, xfs or btrfs"
                ) from exc
            idmapping.attach(layers, overlay.base)
        finally:
            os.close(layers)
        os.chdir(overlay.base)
        _mount(overlay, target, flags)
        found.append(idmapping.clone(target))

    with idmapping.user_namespace(mappings) as namespace:
        _within(overlay.base, lambda: act(namespace), unshare=_CLONE_FS | _CLONE_NEWNS)
    try:
        idmapping.attach(found[0], target)
    finally:
        os.close(found[0])


def _within(directory: Path, act: Callable[[], None], unshare: int = _CLONE_FS) -> None:
    """Call `act` in a thread that has its own working directory: that of the process belongs to everybody.

    Args:
        unshare: what the thread has of its own.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            checked(libc.unshare(unshare))
            os.chdir(directory)
            act()
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=run, name="mount")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]

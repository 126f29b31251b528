"""What the store's writers need of a file system: locks, durable replacement, and errors that say what to do."""

import ctypes
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pullonce.errors import Permanent

_DENIED = (errno.EACCES, errno.EPERM)

_SYNCS = 16
"""Files that are synced at once."""
_AT_FDCWD = -100
_FALLOC_FL_KEEP_SIZE = 1
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn what the operating system says about a full, read-only or forbidden disk into errors that name the path.

    They concern everybody who waits for the key: no other source helps. Other OSErrors pass, FileNotFoundError among them.

    Args:
        needed: bytes that were about to be written.

    Raises:
        Permanent: `disk.full` (of bytes, of inodes, or a quota is; the message says which), `disk.readonly`, `disk.denied` or
            `disk.damaged`.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise (no_inodes(path) if inodes_are_used_up(path) else disk_full(path, needed)) from exc
        if exc.errno == errno.EDQUOT:
            raise quota_used_up(path, needed) from exc
        if exc.errno == errno.EROFS:
            raise Permanent(f"{path} is on a read-only file system", code="disk.readonly", concerns="key") from exc
        if exc.errno in _DENIED:
            raise Permanent(
                f"{path} may not be written by user {os.geteuid()}: {exc.strerror}; give it to this user",
                code="disk.denied",
                concerns="key",
            ) from exc
        if exc.errno == errno.EIO:
            raise Permanent(
                f"{path} cannot be read or written: the disk reports an error", code="disk.damaged", concerns="key"
            ) from exc
        raise


def disk_full(path: Path, needed: int) -> Permanent:
    """The error of a full disk, with the bytes that were needed and those that are free."""
    what = f"; {needed} bytes were needed, {free_bytes(path)} are free" if needed else ""
    return Permanent(f"no space left for {path}{what}", code="disk.full", concerns="key")


def no_inodes(path: Path, why: str = "") -> Permanent:
    """The error of a disk that has bytes left, and no room for another file."""
    what = f": {why}" if why else ""
    told = "`df -i` shows it; remove files, or make the file system anew with more inodes"
    return Permanent(f"no inodes left for {path}{what}; {told}", code="disk.full", concerns="key")


def quota_used_up(path: Path, needed: int) -> Permanent:
    """The error of a quota. What is free on the disk says nothing of it."""
    what = f"; {needed} bytes were needed" if needed else ""
    told = f"the disk quota for it, or for user {os.geteuid()}, is used up"
    return Permanent(f"no space left for {path}{what}: {told}", code="disk.full", concerns="key")


def free_bytes(path: Path) -> int:
    """Bytes that this process may still write where the path lies (or will lie)."""
    stats = os.statvfs(_there(path))
    return stats.f_frsize * (stats.f_bfree if os.geteuid() == 0 else stats.f_bavail)


def inodes_are_used_up(path: Path) -> bool:
    """Whether no further file can be made where the path lies. File systems that make inodes as they need them tell of none."""
    stats = os.statvfs(_there(path))
    return stats.f_files > 0 and (stats.f_ffree if os.geteuid() == 0 else stats.f_favail) == 0


def _there(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def reserve(fd: int, offset: int, length: int) -> bool:
    """Have the file system keep room for bytes to come, without changing the file's size. Source: fallocate(2).

    Returns:
        False where the file system knows no such thing.

    Raises:
        OSError: there is no room (then some may have been reserved: `release`), or the file may not be written.
    """
    if length <= 0:
        return True
    if _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR):
        return False
    raise OSError(number, os.strerror(number))


def release(fd: int) -> None:
    """Give reserved room back. Of an open file only what lies behind its end is touched."""
    os.ftruncate(fd, os.fstat(fd).st_size)


def begin_writing(fd: int, offset: int, length: int) -> None:
    """Have the file system begin to write a stretch of a file to the disk, so that a later sync has less to wait for.

    A hint: nothing is promised, and where there is no such thing nothing happens. Source: sync_file_range(2).
    """
    if hasattr(_libc, "sync_file_range"):
        _libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


def chmod_at(name: bytes, mode: int, *, dir_fd: int) -> None:
    """Give a name in an open directory its permissions, and never what a link in its place leads to. Source: symlink(7)."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        Path(f"/proc/self/fd/{fd}").chmod(mode)  # of a link itself, the kernel refuses it
    finally:
        os.close(fd)


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where the file system or the C library knows no such thing.

    Source: renameat2(2).
    """
    if not hasattr(_libc, "renameat2"):
        return False
    done = _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    number = ctypes.get_errno()
    if done == 0:
        return True
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), os.fspath(one))


def sync_file_system(path: Path) -> None:
    """Have everything that was written to the file system of a directory outlast a power cut. Source: syncfs(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(fd) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlast a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never part of one; a power cut leaves one of them."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def replace_files(files: Mapping[Path, bytes]) -> None:
    """Write several small files as `replace_file` does, and let the disk sync them together.

    They are synced side by side: a journal, and a disk that is told to empty its cache, then do for all what they do for one.
    """
    temporaries = {path: path.with_name(f".{path.name}.{secrets.token_hex(8)}") for path in files}
    with ExitStack() as opened:
        try:
            written = [opened.enter_context(open(temporaries[path], "xb")) for path in files]
            for file, content in zip(written, files.values(), strict=True):
                file.write(content)
                file.flush()
                begin_writing(file.fileno(), 0, len(content))
            with ThreadPoolExecutor(_SYNCS) as pool:
                list(pool.map(os.fsync, [file.fileno() for file in written]))
            for path, temporary in temporaries.items():
                temporary.replace(path)
        except BaseException:
            for temporary in temporaries.values():
                temporary.unlink(missing_ok=True)
            raise
    for directory in {path.parent for path in files}:
        sync_directory(directory)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of an existing file; waits while another process, or another opener in this one, holds it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

"""Small file systems of a test's own: to fill, to make read-only, to hold to a quota, to slow down."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")


@contextmanager
def small_disk(where: Path, megabytes: int, *, inodes: int = 0) -> Iterator[Path]:
    """A tmpfs, mounted for as long as the block lasts. Skips where this machine or user may not mount.

    Args:
        inodes: files and directories that it may hold; 0: as many as it likes.
    """
    options = f"size={megabytes}m" + (f",nr_inodes={inodes}" if inodes else "")
    with mounted_on(where, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield where


@contextmanager
def quota_disk(where: Path, megabytes: int) -> Iterator[Path]:
    """A directory that may hold so much and lies on a larger disk with room: a btrfs subvolume with a limit, which holds for
    root too. Skips where there is no such thing."""
    if not shutil.which("mkfs.btrfs"):
        pytest.skip("needs mkfs.btrfs (Debian: btrfs-progs)")
    with tempfile.TemporaryDirectory() as scratch:
        image = _image(Path(scratch), 300, "mkfs.btrfs", "-q")
        top = Path(scratch, "top")
        with mounted_on(top, "-o", "loop", str(image)):
            _must("btrfs", "quota", "enable", str(top))
            _must("btrfs", "subvolume", "create", str(top / "limited"))
            _must("btrfs", "qgroup", "limit", f"{megabytes}M", str(top / "limited"))
            with mounted_on(where, "--bind", str(top / "limited")):
                yield where


@contextmanager
def real_disk(where: Path, megabytes: int) -> Iterator[Path]:
    """An ext4 of its own on a loop device: it holds bytes back for itself, as disks do. Skips where nothing may be mounted."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        image = _image(Path(scratch), megabytes, "mkfs.ext4", "-q", "-F")
        with mounted_on(where, "-o", "loop", str(image)):
            yield where


class SlowDisk:
    """An ext4 of its own on a loop device, which the kernel writes to at a given rate."""

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        self._device = device

    def slow_down(self, rate: int) -> None:
        """Write at most so many bytes a second from now on; 0: as fast as can be."""
        _THROTTLE.write_text(f"{self._device} {rate}")


@contextmanager
def slow_disk(where: Path, megabytes: int) -> Iterator[SlowDisk]:
    """Skips where the kernel cannot hold a device to a rate in a way that reaches this process: cgroup v1, blkio."""
    if not _THROTTLE.exists() or not os.access(_THROTTLE, os.W_OK):
        pytest.skip("no cgroup v1 with blkio.throttle, so no disk can be made slow")
    # Not on a tmpfs: those who write to it through a loop device are throttled all the same, but so is memory.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        image = _image(Path(scratch), megabytes, "mkfs.ext4", "-q", "-F")
        with mounted_on(where, "-o", "loop", str(image)):
            number = where.stat().st_dev
            disk = SlowDisk(where, f"{os.major(number)}:{os.minor(number)}")
            try:
                yield disk
            finally:
                disk.slow_down(0)


def remount(where: Path, how: str) -> None:
    """`ro` or `rw`."""
    subprocess.run(["mount", "-o", f"remount,{how}", where], check=True)


@contextmanager
def read_only(where: Path) -> Iterator[None]:
    """Whatever is opened below a directory from now on lies on a read-only mount; what is open stays as it was, so that it need
    not be closed before."""
    subprocess.run(["mount", "--bind", where, where], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", where], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


def used(where: Path) -> int:
    """Bytes in use."""
    stats = os.statvfs(where)
    return (stats.f_blocks - stats.f_bfree) * stats.f_frsize


def inodes(where: Path) -> int:
    """Inodes in use."""
    stats = os.statvfs(where)
    return stats.f_files - stats.f_ffree


@contextmanager
def mounted_on(where: Path, *how: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    where.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", *how, where], capture_output=True).returncode:
        pytest.skip(f"this machine does not mount {' '.join(how)}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def _image(place: Path, megabytes: int, *make: str) -> Path:
    """A file with a file system in it. Only what is written to it takes room."""
    image = place / "image"
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    _must(*make, str(image))
    return image


def _must(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(command[:3])}: {done.stderr.strip()}")

"""A fresh file system for each run: where files were deleted lately, ext4 without a journal is several times slower."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPTIONS = ["-i", "16384", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]


@contextmanager
def fresh_disk(size: int = 4 << 30) -> Iterator[Path]:
    """A new, empty ext4 with a journal on a loop device in memory; an ordinary user gets a temporary directory."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        print("measuring in a temporary directory: a fresh file system for each run needs root and mkfs.ext4", file=sys.stderr)
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, tempfile.TemporaryDirectory() as place:
        image = Path(memory) / "ext4"
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-F", *_OPTIONS, image], check=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        try:
            yield Path(place)
        finally:
            unmount_below(Path(place))
            subprocess.run(["umount", "-l", place], check=True)


def unmount_below(place: Path) -> None:
    """Undo what a measured program has mounted and left."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(f"{place}/")]):
        subprocess.run(["umount", "-l", mount], check=False, stderr=subprocess.DEVNULL)


def warm_memory(size: int = 3 << 30) -> None:
    """Touch memory that a virtual machine's host may have taken back: the first touch costs more than a write to the page."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    mmap.mmap(-1, min(size, free // 2), flags=flags).close()

"""Get snapshots onto the disk without anybody waiting for it.

A snapshot is announced when it is committed. Until it is synced it carries `unsynced` with the boot it was written in: after a
power cut it no longer counts, and is unpacked again from the verified blob, which is on the disk. One syncfs covers all that
were committed before it; it comes when nothing is being unpacked, at the latest after half a minute.
"""

import asyncio
import ctypes
import os
from pathlib import Path

from pullonce.snapshots import Snapshots, boot_id

_AT_THE_LATEST = 30.0
"""Seconds."""

_libc = ctypes.CDLL(None, use_errno=True)


class Durability:
    """The snapshots of one store that are not synced yet.

    Args:
        idle: set while nothing is being unpacked.
    """

    def __init__(self, snapshots: Snapshots, idle: asyncio.Event) -> None:
        self._snapshots = snapshots
        self._idle = idle
        self._pending: set[Path] = set()
        self._wanted = asyncio.Event()

    def want(self, snapshot: Path) -> None:
        """A snapshot was committed."""
        self._pending.add(snapshot)
        self._wanted.set()

    async def run(self) -> None:
        """Sync what is committed; first of all what an earlier process of this boot has left. For ever."""
        boot = boot_id()
        for marker in (self._snapshots.root / "snapshots").glob("*/unsynced"):
            if marker.read_text() == boot:
                self.want(marker.parent)
        while True:
            await self._wanted.wait()
            try:
                async with asyncio.timeout(_AT_THE_LATEST):
                    await self._idle.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            synced, self._pending = self._pending, set()
            await asyncio.to_thread(sync, self._snapshots.root, synced)


def sync(root: Path, snapshots: set[Path]) -> None:
    """Sync the file system and mark snapshots as safe."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(fd) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(root))
    finally:
        os.close(fd)
    for snapshot in snapshots:
        (snapshot / "unsynced").unlink(missing_ok=True)

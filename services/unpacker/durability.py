"""Get snapshots onto the disk without anybody waiting for it.

A snapshot is announced when it is committed. Until it is synced it carries `unsynced` with the boot it was written in: after a
power cut it no longer counts, and is unpacked again from the verified blob, which is on the disk. One syncfs covers all that
were committed before it; it comes when nothing is being unpacked, at the latest after half a minute.
"""

import asyncio
import logging
from pathlib import Path

from pullonce.store.snapshots import Snapshots, boot_id, sync

log = logging.getLogger(__name__)

_AT_THE_LATEST = 30.0
_QUIET = 1.0
"""Seconds."""


class Durability:
    """The snapshots of one store that are not synced yet.

    Args:
        idle: set while nothing is being unpacked.
    """

    def __init__(self, snapshots: Snapshots, idle: asyncio.Event) -> None:
        self._snapshots = snapshots
        self._idle = idle
        self._wanted = asyncio.Event()

    def want(self) -> None:
        """A snapshot was committed."""
        self._wanted.set()

    async def run(self) -> None:
        """Sync what is committed; first of all what an earlier process of this boot has left. For ever."""
        boot = boot_id()
        while True:
            unsynced = await asyncio.to_thread(self._unsynced, boot)
            if unsynced:
                try:
                    await asyncio.to_thread(sync, self._snapshots.root, unsynced)
                except OSError as exc:
                    log.error("snapshots could not be synced, and stay marked: %s", exc)
            await self._wanted.wait()
            try:
                async with asyncio.timeout(_AT_THE_LATEST):
                    await self._quiet()
            except TimeoutError:
                pass
            self._wanted.clear()

    async def _quiet(self) -> None:
        """Wait until nothing has been unpacked for a while: a pull has gaps, and a sync would slow what comes after one."""
        while True:
            await self._idle.wait()
            await asyncio.sleep(_QUIET)
            if self._idle.is_set():
                return

    def _unsynced(self, boot: str) -> list[Path]:
        """The marks of this boot's snapshots, whoever made them."""
        found = []
        for mark in self._snapshots.layout.snapshots.glob("*/unsynced"):
            try:
                if mark.read_text() == boot:
                    found.append(mark)
            except FileNotFoundError:
                continue  # another unpacker was faster
        return found

"""Images that the store lists since containerd wanted them, by digest: off the list when containerd let go of all their layers.

What is to be taken off is written with the removal itself, so that it is done in the end, whatever dies or is away meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from pullonce.errors import PullonceError
from services.gateway.snapshotter.state import Change, SnapshotterState

log = logging.getLogger(__name__)

Unlist = Callable[[str], Awaitable[bool]]
"""Takes a reference off the list; False where it has to be tried again later. Raises PullonceError where that is unknown."""

AGAIN = 30.0
"""Seconds between two attempts."""


class Unlisting:
    """What one snapshotter still has to take off the list."""

    def __init__(self, unlist: Unlist, state: SnapshotterState, waiting: Iterable[str], wanted: Callable[[str], bool]) -> None:
        self._unlist = unlist
        self._state = state
        self._waiting = set(waiting)
        self._wanted = wanted
        self._more = asyncio.Event()

    def add(self, reference: str) -> None:
        """One more, which is written already."""
        self._waiting.add(reference)
        self._more.set()

    async def run(self) -> None:
        """Take them off, as soon as that is possible. For ever."""
        while True:
            for reference in sorted(self._waiting):
                if self._wanted(reference) or await self._try(reference):
                    self._waiting.discard(reference)
                    await self._state.write(Change(unlisted=[reference], sync=False))
            self._more.clear()
            try:
                async with asyncio.timeout(AGAIN if self._waiting else None):
                    await self._more.wait()
            except TimeoutError:
                pass

    async def _try(self, reference: str) -> bool:
        try:
            return await self._unlist(reference)
        except PullonceError as exc:
            log.info("an image stays on the list for now", extra={"reference": reference, "why": str(exc)})
            return False

"""Watches work whose source brings nothing while another waiter has another source; see `slow.py`.

Only such work is watched: as long as all who wait for something have it from the same place, a slow line is nobody's fault.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pullonce.bus.ports import Bus
from schemas.malformed import Malformed
from schemas.progress import BlobProgress, decode
from schemas.routing import progress_subject
from services.coordinator.slow import Contest, said_slow
from services.coordinator.waits import Waits

log = logging.getLogger(__name__)

SECONDS = 5.0
RATE = 16_384.0
"""Bytes a second."""
_LOOK = 0.5
"""Seconds between looks at what is contested: nearly always nothing."""
_AFTER_OTHERS = 2.0
"""How many times longer a coordinator takes that did not give the order: it speaks up only where that one is gone."""


class _Gain:
    """Bytes that have come, as workers tell it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done: int | None = None

    def hear(self, _: str, body: bytes) -> None:
        try:
            told = decode(body)
        except Malformed:
            return
        if not isinstance(told, BlobProgress) or told.state not in ("fetching", "verified"):
            return
        if self._done is not None and told.done > self._done:
            self.bytes += told.done - self._done
        self._done = told.done


class SourceWatch:
    """Has what does not come ordered from elsewhere.

    Args:
        waits: of the board that is folded.
        me: name of this coordinator.
        live: whether it has caught up and may act.
        seconds: for which a source may bring less than `rate` bytes a second, while another is at hand.
    """

    def __init__(
        self, bus: Bus, waits: Waits, me: str, live: Callable[[], bool], *, seconds: float = SECONDS, rate: float = RATE
    ) -> None:
        self._bus = bus
        self._waits = waits
        self._me = me
        self._live = live
        self._seconds = seconds
        self._rate = rate
        self._watched: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(_LOOK)
                for key in [key for key in self._waits.contested if key not in self._watched] if self._live() else ():
                    self._watched[key] = tasks.create_task(self._watch(key))

    async def _watch(self, key: str) -> None:
        try:
            while self._waits.has_rivals(key):
                contest = self._waits.contest(key)
                if contest is None:
                    await asyncio.sleep(_LOOK)  # about to be ordered, or its bytes are all there
                else:
                    await self._judge(key, contest)
        finally:
            self._watched.pop(key, None)

    async def _judge(self, key: str, contest: Contest) -> None:
        """Give an attempt its time; name its source slow where it brought next to nothing."""
        patience = self._seconds * contest.patience
        async with self._listening(contest) as gain:
            await asyncio.sleep(patience if self._waits.held_by(key) == self._me else _AFTER_OTHERS * patience)
        if gain.bytes >= self._rate * patience or self._waits.contest(key) != contest:
            return
        log.warning("ordered from elsewhere: %s", key, extra={"source": "/".join(contest.place), "bytes": gain.bytes})
        await self._bus.log.append(said_slow(contest))
        await self._bus.orders.withdraw(contest.order)
        await asyncio.sleep(_LOOK)  # by then it is folded

    @asynccontextmanager
    async def _listening(self, contest: Contest) -> AsyncIterator[_Gain]:
        gain = _Gain()
        subject = progress_subject(BlobProgress(store=contest.order.store, digest=contest.blob))
        heard = await self._bus.signals.subscribe(subject, gain.hear)
        try:
            yield gain
        finally:
            await heard.stop()

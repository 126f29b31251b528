"""Looks whether the orders that work hangs on are still there: somebody may have emptied the queue, or removed it.

An accepted order guarantees its work, so nobody gives it again while its claim stands. A queue that an operator purges takes
that back without a word. What is wanted for a while and has no order in the queue, twice in a row, is pursued anew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import islice

from pullonce.bus.ports import Orders
from schemas import routing
from services.coordinator.intents import Want

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two looks. A worker stores its facts before its order leaves the queue, so that between two looks they are
folded."""
AT_ONCE = 200
"""Keys that are looked after at a time, those that are wanted longest first: one question each."""


class Audit:
    """One coordinator's.

    Args:
        wants: what is wanted now, the oldest first.
        again: pursues a key anew, whether or not an order is known of.
    """

    def __init__(self, orders: Orders, wants: Callable[[], Iterable[Want]], again: Callable[[str], None]) -> None:
        self._orders = orders
        self._wants = wants
        self._again = again
        self._before: set[str] = set()
        """What was wanted at the last look."""
        self._missed: set[str] = set()
        """What had no order then."""

    async def run(self) -> None:
        """Look until cancelled. Raises BusClosed."""
        while True:
            await asyncio.sleep(EVERY)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        now = {want.key: _any_revision(want) for want in islice(self._wants(), AT_ONCE)}
        old = [key for key in now if key in self._before]
        out = await asyncio.gather(*(self._orders.is_out(now[key]) for key in old))
        missing = {key for key, there in zip(old, out, strict=True) if not there}
        still = {want.key for want in self._wants()} if missing & self._missed else set()
        for key in missing & self._missed & still:
            log.warning("the order for %s is not in the queue any more: giving it again", key)
            self._again(key)
        self._before, self._missed = set(now), missing - self._missed


def _any_revision(want: Want) -> str:
    """Subject of the order that a want comes to, under whatever revision."""
    return f"{routing.order_subject(want.order).rpartition('.')[0]}.*"

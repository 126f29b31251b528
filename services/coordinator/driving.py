"""Drives pursuits against the bus: many at a time, what finishes a flight before what opens one.

The three writes of an ordinary pursuit (claim, order, fact) are sent without a task or a wait for each: the answer of one sends
the next. Whatever is not ordinary (a claim that somebody has, an answer that did not come) goes the way that waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from heapq import heappop, heappush
from typing import Any

from pullonce.bus.ports import Bus
from pullonce.errors import Duplicate, WrongRevision
from pullonce.failpoints import reach
from pullonce.trace import carried
from schemas import routing, subjects
from services.coordinator import claim
from services.coordinator.leases import partition_of
from services.coordinator.pursuit import Announce, Get, LookAtClaim, Outcome, Pause, Pursuer, Pursuit, Put, Send, Step
from services.coordinator.traces import Traces

log = logging.getLogger(__name__)

WINDOW = 256
"""Pursuits that have a write on its way. Enough to fill the line; what becomes wanted meanwhile and matters more comes next."""

_RANKS = {"record": 0, "blob": 1, "layer": 1, "resolve": 2}
"""By the noun of a key: listing an image finishes a flight, its content brings it on, resolving only opens it."""


class Driver:
    """Pursues keys.

    Args:
        owns: whether this coordinator acts for a store, now.
        folded: waits until the fold has come to a position, or not for long.
        start: runs a task that the coordinator waits for.
        sleep: waits for what others do; ends when the coordinator is told to stop.
    """

    def __init__(
        self,
        bus: Bus,
        pursuer: Pursuer,
        traces: Traces,
        *,
        owns: Callable[[str], bool],
        folded: Callable[[int], Coroutine[Any, Any, None]],
        start: Callable[[Coroutine[Any, Any, Any]], None],
        sleep: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, None]],
    ) -> None:
        self._bus = bus
        self._pursuer = pursuer
        self._board = pursuer.board
        self._traces = traces
        self._owns = owns
        self._folded = folded
        self._start = start
        self._sleep = sleep
        self._due: list[tuple[int, int, int, str]] = []
        """Keys that wait for a place in the window: rank, position of the flight, a count, key."""
        self._count = 0
        self._pursued: dict[str, bool] = {}
        """Keys that wait or are pursued → whether they were wanted anew meanwhile."""
        self._news: dict[str, asyncio.Event] = {}
        """Key → set when the fold may have changed the mind of the pursuit that pauses on it."""
        self._writing = 0
        self._pumping = False
        self._partitions: Counter[int] = Counter()
        """Partition → pursuits of its keys that have begun."""
        self._stopping = False
        self._quiet = asyncio.Event()

    # -- from the board ------------------------------------------------------------------------------------------------

    def want(self, key: str) -> None:
        """Pursue a key, when its turn comes."""
        if key in self._pursued:
            self._pursued[key] = True
            return
        if self._stopping:
            return
        self._pursued[key] = False
        known = self._board.waits.key(key)
        opened = next(iter(known.waiters.values())).opened if known is not None and known.waiters else 0
        self._count += 1
        heappush(self._due, (_RANKS[key.partition(".")[0]], opened, self._count, key))
        self._pump()

    def settle(self, key: str, at: int) -> None:
        """A key needs no more work: tidy its claim if it is ours, and wake whoever pauses on it."""
        if (put := self._pursuer.settle(key, at)) is not None:
            self._bus.claims.tell(put.key, claim.encode(put.value), expected=put.expected, ttl=put.ttl)
        if (news := self._news.get(key)) is not None:
            news.set()

    @property
    def busy(self) -> frozenset[int]:
        """The partitions for whose keys a pursuit has begun and not ended."""
        return frozenset(self._partitions)

    async def finish(self) -> None:
        """Take the last steps of what was begun, and begin nothing more. What has to wait for something is not waited for."""
        self._stopping = True
        self._due.clear()
        while self._writing:
            self._quiet.clear()
            await self._quiet.wait()

    # -- pursuits ------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Begin what has a place. Not within itself: a pursuit of what nobody wants any more ends where it begins, and
        thousands of those in a row would be as many calls deep."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._due and self._writing < WINDOW and not self._stopping:
                self._begin(heappop(self._due)[-1])
        finally:
            self._pumping = False

    def _begin(self, key: str) -> None:
        if not self._owns(subjects.store_of_key(key)):
            del self._pursued[key]
            return
        self._partitions[partition_of(subjects.store_of_key(key))] += 1
        self._writing += 1
        self._advance(key, self._pursuer.pursue(key), self._traces.of_key(key), None)

    def _advance(self, key: str, pursuit: Pursuit, trace: str, outcome: Outcome) -> None:
        """Take the next step of a pursuit whose last one came out so; the pursuit has a place in the window."""
        try:
            step = pursuit.send(outcome)
        except StopIteration:
            self._end(key)
            return
        then = partial(self._stepped, key, pursuit, trace, step)
        if trace:
            with carried(trace):
                self._take_soon(step, then)
        else:
            self._take_soon(step, then)

    def _take_soon(self, step: Step, then: Callable[[Outcome], None]) -> None:
        match step:
            case Put(key=key, value=value):
                claims = self._bus.claims
                claims.put_soon(key, claim.encode(value), expected=step.expected, ttl=step.ttl, done=then)
            case Send(order=order):
                self._bus.orders.send_soon(order, done=then)
            case Announce(event=event) if event is not None:
                self._bus.log.append_soon(event, message_id=step.message_id, done=then)
            case _:
                then(None)

    def _stepped(self, key: str, pursuit: Pursuit, trace: str, step: Step, outcome: Outcome) -> None:
        """What came of a step that did not wait."""
        try:
            self._go_on_after(key, pursuit, trace, step, outcome)
        except Exception as exc:  # nobody else would hear of it
            self._start(_failed(exc))

    def _go_on_after(self, key: str, pursuit: Pursuit, trace: str, step: Step, outcome: Outcome) -> None:
        """Take the next step; an outcome that is None: this one again, in the way that waits."""
        if outcome is None:
            self._leave_window()
            self._start(self._go_on(key, pursuit, trace, step))
            self._pump()
            return
        self._reach(step)
        self._advance(key, pursuit, trace, outcome)

    async def _go_on(self, key: str, pursuit: Pursuit, trace: str, step: Step) -> None:
        """Take one step however long it lasts, and go on from there."""
        try:
            with carried(trace):
                outcome = await self._take(key, step)
        except BaseException:
            self._forget(key)
            raise
        self._writing += 1
        self._advance(key, pursuit, trace, outcome)

    def _end(self, key: str) -> None:
        self._leave_window()
        again = self._forget(key)
        if again and self._board.waits.want(key) is not None:
            self.want(key)
        self._pump()

    def _leave_window(self) -> None:
        self._writing -= 1
        if self._writing == 0:
            self._quiet.set()

    def _forget(self, key: str) -> bool:
        partition = partition_of(subjects.store_of_key(key))
        self._partitions[partition] -= 1
        if not self._partitions[partition]:
            del self._partitions[partition]
        return self._pursued.pop(key)

    # -- steps that wait -----------------------------------------------------------------------------------------------

    async def _take(self, key: str, step: Step) -> Outcome:
        match step:
            case Put():
                return await self._put(step)
            case Get():
                entry = await self._bus.claims.get(step.key)
                return None if entry is None else (claim.decode(entry.value), entry.revision)
            case Send(order=order):
                await self._send(order)
                return 1
            case LookAtClaim(subject=subject):
                return 1 if await self._is_out(subject) else None
            case Announce(event=event):
                if event is not None:
                    await self._bus.log.append(event, message_id=step.message_id)
                self._reach(step)
                return 1
            case Pause(seconds=seconds):
                return 1 if await self._slept(key, seconds) else None

    async def _put(self, put: Put) -> int | None:
        try:
            revision = await self._bus.claims.put(put.key, claim.encode(put.value), expected=put.expected, ttl=put.ttl)
        except WrongRevision:
            return None
        self._reach(put)
        return revision

    async def _send(self, order: Any) -> None:
        try:
            await self._bus.orders.send(order)
        except Duplicate:
            log.debug("order is queued already", extra={"subject": routing.order_subject(order)})
        reach("order.sent")

    async def _is_out(self, subject: str) -> bool:
        """See `LookAtClaim`."""
        if await self._bus.orders.is_out(subject):
            return True
        await self._folded(await self._bus.log.last_sequence())
        return False

    async def _slept(self, key: str, seconds: float) -> bool:
        """Sleep out somebody's lease, or wake when the key settles. Only a claim that stays without an order makes anyone
        sleep here: no wait for a pull passes this way while its holders live."""
        news = self._news.setdefault(key, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await self._sleep(news.wait())
            return False
        except TimeoutError:
            return True
        finally:
            self._news.pop(key, None)

    @staticmethod
    def _reach(step: Step) -> None:
        match step:
            case Put(value=claim.Held()):
                reach("claim.held")
            case Send():
                reach("order.sent")
            case Announce():
                reach("claim.ordered")


async def _failed(error: Exception) -> None:
    """Ends the coordinator, as any task that fails does."""
    raise error

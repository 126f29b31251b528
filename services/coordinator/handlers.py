"""The coordinator's shell: folds the log and carries intents out against the bus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from pullonce.bus.ports import Bus, Recorded
from pullonce.errors import BusError
from pullonce.failpoints import reach
from pullonce.telemetry.spans import Span, Spans
from pullonce.trace import carried
from schemas.events import PullCompleted, PullFailed, PullRequested, oversized
from services.coordinator import claim
from services.coordinator.board import Board
from services.coordinator.driving import Driver
from services.coordinator.flight import Ending
from services.coordinator.holding import Holding
from services.coordinator.intents import End, Intent, Settle, Want, Withdraw, withdrawn
from services.coordinator.keeper import LOG_BYTES, LogKeeper
from services.coordinator.leases import partition_of
from services.coordinator.pursuit import Pursuer
from services.coordinator.traces import Traces
from services.coordinator.turns import Turns

log = logging.getLogger(__name__)

LAST_STEPS = 2.0
"""Seconds that a coordinator which is told to stop takes to finish what it has begun. A claim that it left *held* would keep
others waiting for a lease."""


class Coordinator:
    """Folds EVENTS, and acts once it has caught up. Owns nothing: all its state is the log and the claims."""

    def __init__(
        self,
        bus: Bus,
        me: str,
        spans: Spans | None = None,
        *,
        lease: float = claim.HOLD,
        log_bytes: int = LOG_BYTES,
        gone: Callable[[str], bool] | None = None,
    ) -> None:
        self.board = Board()
        self.behind = 0
        """Messages of the log that were still to be read when the last one came."""
        self.live = False
        """Caught up once: what is folded from now on is news and may be acted upon."""
        self._bus = bus
        self._pursuer = Pursuer(self.board, me, lease)
        self._traces = Traces(self.board, spans)
        self.keeper = LogKeeper(bus, self.board, limit=log_bytes, say=self._say_cut_off)
        self.leases = Holding(
            bus.claims, me, lease, changed=self._take_over, busy=lambda: self._driver.busy, gone=gone or (lambda _: False)
        )
        self._driver = Driver(
            bus, self._pursuer, self._traces, owns=self.leases.owns, folded=self._folded, start=self._start, sleep=self._sleep
        )
        self._lease = lease
        self._read = 0
        self._behind: list[tuple[int, asyncio.Future[None]]] = []
        """Who waits for the fold to come to a position."""
        self._turns = Turns(self.board)
        self._parked = 0
        self._ready: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._begun: set[asyncio.Task[Any]] = set()
        self._asleep: set[asyncio.Task[Any]] = set()
        """Those of the begun that wait for somebody else, and need not be waited for."""
        self._stopping = False
        self._holding: asyncio.Task[None] | None = None

    async def run(self, ready: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Coordinate until cancelled or until the bus is closed for good.

        Args:
            ready: awaited once, when the fold has caught up and this coordinator has begun to act.
        """
        self._ready = ready
        self._parked = await self._bus.log.last_parked()
        self._bus.signals.on_reconnect(self._look_again)
        start = await self.keeper.begin()
        async with asyncio.TaskGroup() as self._tasks:
            keeping = self._tasks.create_task(self.keeper.run())
            try:
                await self._bus.log.follow(self._fold, start=start, idle=self._caught_up)
            except asyncio.CancelledError:
                keeping.cancel()
                if self._holding is not None:
                    self._holding.cancel()
                await self._finish()
                raise

    def wanted(self) -> Iterator[Want]:
        """What is wanted of this coordinator now and had its turn, once it acts; what was wanted first comes first."""
        every = self.board.waits.everything() if self.live else iter(())
        mine = (each for each in every if isinstance(each, Want) and self.leases.owns(each.store))
        return (each for each in mine if not self._turns.is_waiting(each.key))

    def pursue_anew(self, key: str) -> None:
        """Pursue a key, trusting nothing that is known of its order."""
        self._driver.want(key)

    def progress(self) -> tuple[int, int]:
        """The position that was read last, and the one up to which there is something to read."""
        return self._read, self._read + self.behind

    async def _finish(self) -> None:
        """Take the last steps of what was begun: give the orders of the claims that were won, say the endings that are ours."""
        self._stopping = True
        for task in self._asleep:
            task.cancel()
        try:
            async with asyncio.timeout(LAST_STEPS):
                await self._driver.finish()
                while self._begun:
                    await asyncio.wait(self._begun)
                await self.leases.leave()
        except (TimeoutError, BusError):
            log.warning("stopped before everything that was begun had ended")

    # -- fold ----------------------------------------------------------------------------------------------------------

    def _fold(self, recorded: Recorded) -> None:
        self._read, self.behind = recorded.sequence, recorded.pending
        if recorded.event is None:
            self._park(recorded)
        else:
            self._traces.note(recorded)
            intents = self.board.apply(recorded.event, recorded.sequence)
            self.keeper.note(recorded)
            if isinstance(recorded.event, PullCompleted):
                self._turns.completed(recorded.event.flight)
            if self.live:
                self._turns.note(recorded.event, intents)
                if intents:
                    self._act_on(intents)
                if not isinstance(recorded.event, PullRequested):
                    for key in self._turns.next():
                        self._driver.want(key)
        if self._behind:
            self._tell_position()
        if not self.live and recorded.pending == 0:
            self._caught_up()

    def _tell_position(self) -> None:
        behind, self._behind = self._behind, []
        for sequence, reached in behind:
            if self._read < sequence and not reached.cancelled():
                self._behind.append((sequence, reached))
            elif not reached.done():
                reached.set_result(None)

    async def _folded(self, sequence: int) -> None:
        """Wait until the fold has come to a position; not for long, since what was removed from the log never comes."""
        if self._read < sequence:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._behind.append((sequence, reached))
            await asyncio.wait((reached,), timeout=self._lease)

    def _park(self, recorded: Recorded) -> None:
        """Put what is no event aside with its reason; what an earlier life parked is not parked again."""
        if recorded.sequence > self._parked:
            self._start(self._put_aside(recorded))
        elif oversized(recorded.subject, recorded.body):
            self._start(self._bus.log.remove(recorded.sequence))

    async def _put_aside(self, recorded: Recorded) -> None:
        log.warning("parked", extra={"sequence": recorded.sequence, "subject": recorded.subject, "reason": recorded.malformed})
        await self._bus.log.park(recorded)
        if oversized(recorded.subject, recorded.body):  # a client could fill the log with them
            await self._bus.log.remove(recorded.sequence)

    def _caught_up(self) -> None:
        if self.live:
            return
        self.live = self.keeper.live = True
        assert self._tasks is not None, "acted before run()"
        # Not before: whoever holds partitions and only reads would serve nobody there, while others could.
        self._holding = self._tasks.create_task(self.leases.run())
        log.info("caught up", extra={"position": self.board.position, "flights": len(self.board.flights)})
        self._look_again()
        if self._ready is not None:
            self._start(self._ready())

    def _look_again(self) -> None:
        """Act on everything that is wanted, trusting nothing that happened unseen."""
        self.leases.look_anew()
        if self.live:
            self.board.waits.trusted = self.board.position
            self._act_on(self._all_wanted())

    # -- intents -------------------------------------------------------------------------------------------------------

    def _take_over(self, partitions: frozenset[int]) -> None:
        """Act on everything that is wanted for stores whose partitions were gained."""
        if self.live:
            self._act_on([each for each in self._all_wanted() if partition_of(each.store) in partitions])

    def _all_wanted(self) -> list[Intent]:
        """Everything that is to be done now, and that nobody is known to be at."""
        in_hand = self.board.waits.in_hand
        return [each for each in self.board.intents() if not (isinstance(each, Want) and in_hand(each.key))]

    def _act_on(self, intents: list[Intent]) -> None:
        owned = self.leases.owned
        for intent in intents:
            if not owned or partition_of(intent.store) not in owned:
                continue
            match intent:
                case Want(key=key):
                    if self._turns.may_go(key):
                        self._driver.want(key)
                case End(ending=ending):
                    with carried(self._traces.of_flight(ending.flight)):
                        self._start(self._end(ending, self._traces.of_ending(ending)))
                case Withdraw():
                    self._start(self._withdraw(intent))
        for intent in intents:
            if isinstance(intent, Settle):
                self._driver.settle(intent.key, intent.at)

    async def _end(self, ending: Ending, spans: tuple[Span, ...]) -> None:
        reach("ending.ready")
        sequence = await self._bus.log.append(ending, cause=ending.covers - 1)
        reach("ending.stored")
        self._traces.tell(spans, time.time())
        log.info(
            str(ending.__struct_config__.tag),
            extra={"flight": ending.flight, "reference": ending.reference, "covers": ending.covers, "sequence": sequence},
        )

    async def _say_cut_off(self, ending: PullFailed) -> None:
        sequence = await self._bus.log.append(ending)
        log.warning("cut off", extra={"flight": ending.flight, "reference": ending.reference, "sequence": sequence})

    async def _withdraw(self, withdraw: Withdraw) -> None:
        """Say that an order came to nothing: a worker that runs it hears that and stops. Then clear it from the queue."""
        if self.board.waits.unwanted(withdraw):
            await self._bus.log.append(withdrawn(withdraw.order))
            await self._bus.orders.withdraw(withdraw.order)

    # -- what was begun ------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        assert self._tasks is not None, "acted before run()"
        task = self._tasks.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _sleep(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Wait for what others may do; a coordinator that is told to stop does not."""
        task = asyncio.current_task()
        assert task is not None
        self._asleep.add(task)
        try:
            if self._stopping:
                waiting.close()
                raise asyncio.CancelledError
            await waiting
        finally:
            self._asleep.discard(task)

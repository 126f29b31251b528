"""The roll calls of one asyncio client: conversations that want one at about the same time share it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from pullonce.bus.ports import Signals
from pullonce.pulling.attendance import Attendance
from pullonce.pulling.timings import Timings
from schemas.malformed import Malformed
from schemas.status import decode_pong
from schemas.subjects import PING_SUBJECT

SHARED = 0.5
"""Of the time that parts have to answer, in which others may still join a call."""

_Heard = Callable[[Attendance], None]


class RollCalls:
    """Asks who is there, for whichever conversations want to know."""

    def __init__(self, signals: Signals, times: Timings) -> None:
        self._signals = signals
        self._times = times
        self._call: _Call | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, roll: Attendance, changed: Callable[[], None]) -> None:
        """Tell a roll who is there; `changed` is called whenever it was told something."""
        now = asyncio.get_running_loop().time()
        if self._call is None or now - self._call.begun > SHARED * self._times.answer:
            self._call = _Call(now)
            self._spawn(self._ask(self._call))
            self._spawn(self._echo(self._call))
        self._call.join(roll, changed)

    async def _ask(self, call: _Call) -> None:
        def take(body: bytes) -> None:
            with contextlib.suppress(Malformed):
                pong = decode_pong(body)
                call.hear(lambda roll: roll.present(pong.service, pong.store))

        with contextlib.suppress(Exception):  # the bus is closed: there are others who say so
            await self._signals.gather(
                PING_SUBJECT, b"", timeout=self._times.answer, take=take, nobody=lambda: call.hear(Attendance.nobody)
            )

    async def _echo(self, call: _Call) -> None:
        await asyncio.sleep(0)  # behind the call itself
        with contextlib.suppress(Exception):
            if await self._signals.echo(self._times.away):
                call.hear(Attendance.echoed)

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Call:
    """One roll call: what was heard so far, and who wants to hear it."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self._heard: list[_Heard] = []
        self._rolls: list[tuple[Attendance, Callable[[], None]]] = []

    def join(self, roll: Attendance, changed: Callable[[], None]) -> None:
        self._rolls.append((roll, changed))
        for told in self._heard:
            told(roll)

    def hear(self, told: _Heard) -> None:
        self._heard.append(told)
        for roll, changed in list(self._rolls):
            told(roll)
            changed()

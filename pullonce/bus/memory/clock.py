"""Time for the memory twin: the event loop's, or one that its user brings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Something that will happen unless it is cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Tells the time, in seconds, and calls back later."""

    def time(self) -> float: ...

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer: ...


class LoopClock:
    """The running event loop's own time."""

    def time(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, call)

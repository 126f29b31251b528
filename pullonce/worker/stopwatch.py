"""How long each step of some work took: a watch that counts for exactly one step at a time.

    with running("look") as watch:
        turn("transfer")
        …
    watch.seconds()        {"look": 0.01, "transfer": 1.2}

Steps are named from wherever they happen, without handing the watch down; where none runs, naming one costs nothing.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from time import monotonic
from typing import TypeAlias, TypeVar

from msgspec.structs import replace

from schemas.events import Event

S = TypeVar("S")
O = TypeVar("O")  # noqa: E741

Carry: TypeAlias = Callable[[S, O], Awaitable[list[Event]]]

_current: ContextVar["Stopwatch | None"] = ContextVar("stopwatch", default=None)


class Stopwatch:
    """Counts for one step after the other. A step that is named again goes on where it stopped."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._since = monotonic()
        self._seconds: dict[str, float] = {step: 0.0}

    def turn(self, step: str) -> str:
        """From now on, count for this step. Returns the one before."""
        before, now = self._step, monotonic()
        self._seconds[before] += now - self._since
        self._seconds.setdefault(step, 0.0)
        self._step, self._since = step, now
        return before

    def seconds(self) -> dict[str, float]:
        """Seconds by step up to now, to the microsecond, in the order in which the steps began; none for what took no time."""
        self.turn(self._step)
        return {step: rounded for step, spent in self._seconds.items() if (rounded := round(spent, 6))}


@contextmanager
def running(step: str) -> Iterator[Stopwatch]:
    """A watch for the body of the `with`, and for whatever it calls; it begins with `step`."""
    watch = Stopwatch(step)
    token = _current.set(watch)
    try:
        yield watch
    finally:
        _current.reset(token)


def turn(step: str) -> None:
    """Count for another step from now on, where a watch runs."""
    watch = _current.get()
    if watch is not None:
        watch.turn(step)


@contextmanager
def spent_on(step: str) -> Iterator[None]:
    """Count the body of the `with` for a step, then go on with the one before."""
    watch = _current.get()
    if watch is None:
        yield
        return
    before = watch.turn(step)
    try:
        yield
    finally:
        watch.turn(before)


def timed(step: str) -> Callable[[Carry[S, O]], Carry[S, O]]:
    """Let the last fact that a handler of orders returns say how long each step took; the first step is `step`.

    A fact that something came to nothing has no place for that, and stays as it is.
    """

    def decorate(carry_out: Carry[S, O]) -> Carry[S, O]:
        @wraps(carry_out)
        async def carry_out_timed(self: S, order: O) -> list[Event]:
            with running(step) as watch:
                *others, fact = await carry_out(self, order)
            return [*others, replace(fact, seconds=watch.seconds()) if hasattr(fact, "seconds") else fact]

        return carry_out_timed

    return decorate

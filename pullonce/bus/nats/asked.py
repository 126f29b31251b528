"""The requests in flight on a connection: each has a token, a future, and a moment at which nobody waits any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pullonce.bus.nats.parser import Raw

PATIENCE = 5.0
"""Seconds after which a request that was not answered counts as unclear."""


class Unclear(Exception):
    """The request may or may not have been carried out."""


class Asked:
    """Token → who waits for the answer. One timer for all that have the usual patience, since there may be thousands."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._waiting: dict[bytes, asyncio.Future[Raw]] = {}
        self._calls: dict[bytes, Callable[[Raw | None], None]] = {}
        """Token → who is told of the answer, and does not wait for it."""
        self._until: dict[bytes, float] = {}
        """Those with the usual patience, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, timeout: float) -> tuple[bytes, asyncio.Future[Raw]]:
        """A fresh token, and a future that fails with Unclear after `timeout` seconds. `forget` must follow."""
        self._count += 1
        token, answer = b"%d" % self._count, self._loop.create_future()
        self._waiting[token] = answer
        if timeout == PATIENCE:
            self._until[token] = self._loop.time() + PATIENCE
            if self._timer is None:
                self._timer = self._loop.call_later(PATIENCE, self._look)
        else:
            timer = self._loop.call_later(timeout, _give_up, answer)
            answer.add_done_callback(lambda _: timer.cancel())
        return token, answer

    def expect_call(self, take: Callable[[Raw | None], None]) -> bytes:
        """A fresh token; `take` is called with its answer, or with None after the usual patience."""
        self._count += 1
        token = b"%d" % self._count
        self._calls[token] = take
        self._until[token] = self._loop.time() + PATIENCE
        if self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._look)
        return token

    def forget(self, token: bytes) -> None:
        """Nobody waits for it any more."""
        self._until.pop(token, None)
        answer = self._waiting.pop(token, None)
        if answer is not None and not answer.done():
            answer.cancel()

    def answered(self, token: bytes, raw: Raw) -> None:
        """Its answer has come; one that nobody waits for is passed over."""
        take = self._calls.pop(token, None)
        if take is not None:
            del self._until[token]
            take(raw)
            return
        answer = self._waiting.get(token)
        if answer is not None and not answer.done():
            answer.set_result(raw)

    def fail_all(self, error: Exception) -> None:
        """All that are in flight end so."""
        calls, self._calls = self._calls, {}
        for token, take in calls.items():
            del self._until[token]
            self._loop.call_soon(take, None)
        for answer in list(self._waiting.values()):
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # looked at: one that nobody waits for any more need not be complained about

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Give up whatever has waited too long, and come again when the next one may have."""
        now, self._timer = self._loop.time(), None
        for token, until in list(self._until.items()):
            if until > now:
                self._timer = self._loop.call_at(until, self._look)
                return
            if (take := self._calls.pop(token, None)) is not None:
                del self._until[token]
                self._loop.call_soon(take, None)
            elif token in self._waiting:
                _give_up(self._waiting[token])


def _give_up(answer: asyncio.Future[Raw]) -> None:
    if not answer.done():
        answer.set_exception(Unclear("no answer"))

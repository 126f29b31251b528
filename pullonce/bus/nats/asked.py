"""The requests in the air on a connection: each has a token, a future, and a moment at which nobody waits any longer."""

from __future__ import annotations

import asyncio

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

    def forget(self, token: bytes) -> None:
        """Nobody waits for it any more."""
        self._until.pop(token, None)
        answer = self._waiting.pop(token, None)
        if answer is not None and not answer.done():
            answer.cancel()

    def answered(self, token: bytes, raw: Raw) -> None:
        """Its answer has come; one that nobody waits for is passed over."""
        answer = self._waiting.get(token)
        if answer is not None and not answer.done():
            answer.set_result(raw)

    def fail_all(self, error: Exception) -> None:
        """All that are in the air end so."""
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
        for token, until in self._until.items():
            if until > now:
                self._timer = self._loop.call_at(until, self._look)
                return
            _give_up(self._waiting[token])


def _give_up(answer: asyncio.Future[Raw]) -> None:
    if not answer.done():
        answer.set_exception(Unclear("no answer"))

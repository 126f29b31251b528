"""Core messages of the memory twin: handed over in the next turn of the event loop, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from pullonce.bus.memory.clock import Clock
from pullonce.bus.ports import Reply, Subscription
from pullonce.errors import Duplicate

log = logging.getLogger(__name__)

Hear = Callable[[str, bytes, Callable[[bytes], None]], None]
"""Takes subject, body, and where to send an answer."""


def subjects_match(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` hears `subject`: `*` is one token, a final `>` one or more (NATS subjects)."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


@dataclass(slots=True, eq=False)
class MemorySubscription:
    """`bus.Subscription`."""

    pattern: str
    queue: str
    hear: Hear
    others: list[MemorySubscription] = field(repr=False)

    async def stop(self) -> None:
        if self in self.others:
            self.others.remove(self)


class MemorySignals:
    """`bus.Signals`.

    Args:
        store: keeps what is sent to a stream's subject and returns its sequence; None where no stream takes the subject.
    """

    def __init__(self, clock: Clock, store: Callable[[str, bytes], int | None]) -> None:
        self._clock = clock
        self._store = store
        self._subscriptions: list[MemorySubscription] = []
        self._disconnected: list[Callable[[], None]] = []
        self._reconnected: list[Callable[[], None]] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._turn = 0

    async def publish(self, subject: str, body: bytes) -> None:
        self._send(subject, body, _nowhere)

    async def subscribe(self, subject: str, receive: Callable[[str, bytes], None], *, queue: str = "") -> Subscription:
        def hear(subject: str, body: bytes, answer: Callable[[bytes], None]) -> None:
            receive(subject, body)

        return self._listen(subject, queue, hear)

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def take(body: bytes) -> None:
            if not answer.done():
                answer.set_result(body)

        def give_up() -> None:
            if not answer.done():
                answer.set_exception(TimeoutError(f"no answer on {subject} within {timeout} s"))

        if not self._send(subject, body, take):
            raise TimeoutError(f"nobody answers on {subject}")
        timer = self._clock.call_later(timeout, give_up)
        try:
            return await answer
        finally:
            timer.cancel()

    async def gather(
        self, subject: str, body: bytes, *, timeout: float, take: Callable[[bytes], None] | None = None,
        nobody: Callable[[], None] | None = None,
    ) -> list[bytes]:  # fmt: skip
        answers: list[bytes] = []

        def keep(answer: bytes) -> None:
            answers.append(answer)
            if take:
                take(answer)

        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(timeout, lambda: None if over.done() else over.set_result(None))
        try:
            if not self._send(subject, body, keep) and nobody:
                nobody()
            await over
        finally:
            timer.cancel()
        return answers

    async def answer(self, subject: str, reply: Reply, *, queue: str = "") -> Subscription:
        def hear(subject: str, body: bytes, answer: Callable[[bytes], None]) -> None:
            if answer is _nowhere:
                return
            said = reply(body)
            if isinstance(said, bytes):
                answer(said)
                return
            task = asyncio.ensure_future(_answer_later(subject, answer, said))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        return self._listen(subject, queue, hear)

    @property
    def connected(self) -> bool:
        return True

    async def echo(self, timeout: float) -> bool:
        return True

    def on_disconnect(self, notify: Callable[[], None]) -> None:
        self._disconnected.append(notify)

    def on_reconnect(self, notify: Callable[[], None]) -> None:
        self._reconnected.append(notify)

    # -- for tests -----------------------------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """As if the connection had broken and come back."""
        for notify in [*self._disconnected, *self._reconnected]:
            notify()

    # -- within --------------------------------------------------------------------------------------------------------

    def announce(self, subject: str, body: bytes) -> None:
        """Let listeners hear what was just stored."""
        self._spread(subject, body, _nowhere)

    def _listen(self, pattern: str, queue: str, hear: Hear) -> MemorySubscription:
        subscription = MemorySubscription(pattern, queue, hear, self._subscriptions)
        self._subscriptions.append(subscription)
        return subscription

    def _send(self, subject: str, body: bytes, answer: Callable[[bytes], None]) -> bool:
        """Whether anybody took it."""
        try:
            sequence = self._store(subject, body)
        except Duplicate as exc:
            answer(b'{"error":{"code":503,"err_code":10077,"description":"%b"}}' % str(exc).encode())
            return True
        if sequence is None:
            return self._spread(subject, body, answer)
        answer(b'{"stream":"memory","seq":%d}' % sequence)
        return True

    def _spread(self, subject: str, body: bytes, answer: Callable[[bytes], None]) -> bool:
        heard = [each for each in self._subscriptions if subjects_match(each.pattern, subject)]
        groups: dict[tuple[str, str], list[MemorySubscription]] = {}
        for each in heard:
            if each.queue:
                groups.setdefault((each.pattern, each.queue), []).append(each)
        self._turn += 1
        chosen = [each for each in heard if not each.queue] + [group[self._turn % len(group)] for group in groups.values()]
        for each in chosen:
            asyncio.get_running_loop().call_soon(self._hand_over, each, subject, body, answer)
        return bool(chosen)

    def _hand_over(self, to: MemorySubscription, subject: str, body: bytes, answer: Callable[[bytes], None]) -> None:
        if to not in self._subscriptions:
            return
        try:
            to.hear(subject, body, answer)
        except Exception:
            log.exception("a listener on %s failed", to.pattern)


async def _answer_later(subject: str, answer: Callable[[bytes], None], body: Coroutine[Any, Any, bytes]) -> None:
    try:
        answer(await body)
    except Exception:
        log.exception("no answer could be given on %s", subject)


def _nowhere(_: bytes) -> None:
    """Where answers go that nobody asked for."""

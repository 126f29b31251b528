"""Pushes on the bus: begun by one question, told by another, given up when nobody asks any more. See `schemas.push`."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from pullonce.bus.ports import Signals, Subscription
from pullonce.errors import Permanent, PullonceError, Retryable
from schemas.malformed import Malformed
from schemas.push import PushImage, PushStatus, decode_image, decode_now
from schemas.subjects import push_image_subject, push_now_subject
from services.fetcher.auth.redaction import Secrets
from services.fetcher.pushing.push import Push, Pusher

log = logging.getLogger(__name__)

ABANDONED = 30.0
"""Seconds without a question after which nobody waits for a push."""
_MOMENT = 0.5
"""Seconds that an answer waits for news."""
_PACE = 0.05
"""Seconds between two answers, at least, while bytes go by."""
_TOLD = 15.0
"""Seconds for which the end of a push is told to whoever asks once more."""
_MOST = 64
"""Pushes at a time."""

Carry = Callable[[PushImage, PushStatus, Callable[[PushStatus], None]], Coroutine[Any, Any, None]]


class _Running:
    """One push, as those who ask see it."""

    def __init__(self, status: PushStatus) -> None:
        self.status = status
        self.asked = time.monotonic()
        self.news = asyncio.Event()
        self.left = False

    def told(self, status: PushStatus) -> None:
        self.status = status
        self.news.set()


class Pushes:
    """The pushes of one fetcher. `async with Pushes(…) as pushes: …`; leaving gives up what is under way.

    Args:
        store: the one that is served.
    """

    def __init__(self, signals: Signals, store: str, pusher: Pusher) -> None:
        self._signals = signals
        self._store = store
        self._pusher = pusher
        self._secrets: Secrets = pusher.registry.secrets
        self._me = f"fetcher {os.getpid()} on {socket.gethostname()}"
        self._running: dict[str, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Pushes":
        await self._signals.answer(push_image_subject(self._store), self._begin, queue="pushing")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _begin(self, body: bytes) -> bytes:
        try:
            wanted = decode_image(body)
            _check(wanted)
        except Malformed as exc:
            return msgspec.json.encode(PushStatus(id="", state="failed", code="message.malformed", message=str(exc)))
        running = self._running.get(wanted.id)
        if running is None:
            if len(self._tasks) >= _MOST:
                why = f"{self._me} is at {_MOST} pushes already; try again later"
                return msgspec.json.encode(PushStatus(id=wanted.id, state="failed", code="push.busy", message=why))
            running = self._running[wanted.id] = _Running(PushStatus(id=wanted.id, by=self._me))
            subscription = await self._signals.answer(
                push_now_subject(self._store, wanted.id), lambda question: self._now(running, question)
            )
            task = asyncio.create_task(self._live(wanted, running, subscription))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return msgspec.json.encode(running.status)

    async def _now(self, running: _Running, body: bytes) -> bytes:
        running.asked = time.monotonic()
        try:
            question = decode_now(body)
        except Malformed as exc:
            return msgspec.json.encode(PushStatus(id="", state="failed", code="message.malformed", message=str(exc)))
        if question.leave:
            running.left = True
            running.news.set()
        elif running.status.state == "pushing":
            await asyncio.sleep(_PACE)
            end = time.monotonic() + _MOMENT
            while running.status.change == question.heard and (rest := end - time.monotonic()) > 0:
                running.news.clear()
                try:
                    async with asyncio.timeout(rest):
                        await running.news.wait()
                except TimeoutError:
                    break
        running.asked = time.monotonic()
        return msgspec.json.encode(running.status)

    async def _live(self, wanted: PushImage, running: _Running, subscription: Subscription) -> None:
        """A push from its beginning until its end was told."""
        about = {"image": wanted.reference, "target": wanted.target, "requester": wanted.requester}
        log.info("a push begins", extra=about)
        try:
            work = asyncio.create_task(Push(self._pusher, wanted, running.status, running.told).run())
            try:
                await self._attend(work, running)
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            running.told(self._ended(running.status, work))
            log.info("a push has ended", extra={**about, "state": running.status.state, "code": running.status.code})
            await asyncio.sleep(_TOLD if not running.left else 0)
        finally:
            self._running.pop(wanted.id, None)
            await subscription.stop()

    async def _attend(self, work: asyncio.Task[None], running: _Running) -> None:
        """Wait for the end, or until nobody waits for it."""
        while not work.done():
            await asyncio.wait((work,), timeout=_MOMENT / 2)
            if running.left or time.monotonic() - running.asked > ABANDONED:
                return

    def _ended(self, status: PushStatus, work: asyncio.Task[None]) -> PushStatus:
        code = message = ""
        if work.cancelled():
            code, message = "push.left", "nobody waits for it any more"
        elif (exc := work.exception()) is not None:
            if not isinstance(exc, PullonceError):
                log.error("a push failed in a way nobody foresaw", exc_info=exc)
            code = exc.code if isinstance(exc, Permanent | Retryable) else "internal"
            message = self._secrets.told(str(exc) or type(exc).__name__, 2000)
        state = "failed" if code else "pushed"
        return msgspec.structs.replace(status, state=state, code=code, message=message, change=status.change + 1, note="")


def _check(wanted: PushImage) -> None:
    """Raises Malformed: its name is none that a subject can hold."""
    if not (16 <= len(wanted.id) <= 64 and set(wanted.id) <= set("0123456789abcdef")):
        raise Malformed(f"not a push.image: its id is {wanted.id[:80]!r}; expected 16 to 64 hex digits")

"""One reader of a stream that misses nothing: an ordered push consumer with flow control, made anew whenever in doubt.

The server counts its deliveries (the consumer sequence). A hole in that count, silence for longer than heartbeats allow, or
a reconnection means that something may have been lost; then the consumer is made again from the last sequence that was
applied. Our own, since nats-py's is blind for up to 18 s after a server restart and replays everything when it resets early.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Any

from pullonce import trace
from pullonce.bus.nats.jetstream import NO_STREAM, Refused, api
from pullonce.bus.nats.link import Headers, Link
from pullonce.bus.nats.protocol import Position, headers_of, nanoseconds, position, text
from pullonce.bus.ports import Recorded
from pullonce.bus.reading import recorded
from pullonce.errors import LogShortened

log = logging.getLogger(__name__)

_HEARTBEAT = 1.0
_SILENCE = 3 * _HEARTBEAT
_TRACED = trace.HEADER.encode()
_FLOW_CONTROL = "$JS.FC."
_FORGET = 30.0
"""Seconds after which the server drops a consumer that nobody listens to."""


class Follower:
    """Hands a stream to `apply` in order, each message once, for ever."""

    def __init__(
        self, link: Link, stream: str, apply: Callable[[Recorded], None], *, start: int, idle: Callable[[], None] | None
    ) -> None:
        self._link = link
        self._stream = stream
        self._apply = apply
        self._idle = idle
        self._next = start
        self._expected = 1
        self._name = ""
        self._pending = 0
        """Messages that were stored behind the last one, as it was said when that was delivered."""
        self._counting: asyncio.Future[None] | None = None
        self._heard = False
        self._doubt: asyncio.Future[None]

    async def run(self) -> None:
        """Follow until cancelled. Raises what `apply` raises, BusClosed, and LogShortened."""
        self._link.on_reconnect.append(self._begin_again)
        try:
            while True:
                await self._attached()
        finally:
            self._link.on_reconnect.remove(self._begin_again)

    async def _attached(self) -> None:
        """One life of a consumer; returns when it must be made anew."""
        self._doubt = self._link.future()
        self._expected = 1
        inbox = self._link.new_inbox()
        subscription = await self._link.listen(inbox, self._on_message)
        watch = asyncio.ensure_future(self._watch())
        try:
            made = await self._make_consumer(inbox)
            if self._expected == 1:
                self._pending = made["num_pending"]
                if self._pending == 0 and not self._doubt.done():
                    self._caught_up()
            await self._doubt
        finally:
            watch.cancel()
            if self._counting is not None:
                self._counting.cancel()
                self._counting = None
            self._doubt.cancel()
            await self._link.drop(subscription)

    async def _make_consumer(self, inbox: str) -> dict[str, Any]:
        try:
            await self._check_length()
            self._name = f"f{uuid.uuid4().hex}"
            made: dict[str, Any] = await api(self._link, f"CONSUMER.CREATE.{self._stream}.{self._name}", self._consumer(inbox))
        except Refused as exc:
            if exc.err_code == NO_STREAM and self._next > 1:
                raise self._shortened(0) from exc
            raise
        return made

    def _consumer(self, inbox: str) -> dict[str, object]:
        return {
            "stream_name": self._stream,
            "config": {
                "deliver_subject": inbox,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self._next,
                "ack_policy": "none",
                "max_deliver": 1,
                "replay_policy": "instant",
                "flow_control": True,
                "idle_heartbeat": nanoseconds(_HEARTBEAT),
                "inactive_threshold": nanoseconds(_FORGET),
                "mem_storage": True,
                "num_replicas": 1,
            },
        }

    async def _check_length(self) -> None:
        """A consumer that is to start behind the end starts at the end, and would pass over a log that lost its tail."""
        last = (await api(self._link, f"STREAM.INFO.{self._stream}"))["state"]["last_seq"]
        if last < self._next - 1:
            raise self._shortened(last)

    def _shortened(self, last: int) -> LogShortened:
        return LogShortened(
            f"stream {self._stream} ends at {last}, but was read up to {self._next - 1} before: "
            "it was restored or lost its tail; whatever was folded from it must be folded again from the beginning"
        )

    # -- what arrives --------------------------------------------------------------------------------------------------

    def _on_message(self, subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        if self._doubt.done():
            return
        self._heard = True
        try:
            if (at := position(reply)) is not None:
                self._on_stored(at, subject, head, data)
            else:
                self._on_control(text(reply), headers_of(head))
        except Exception as exc:
            self._fail(exc)

    def _on_stored(self, at: Position, subject: bytes, head: bytes, data: bytes) -> None:
        _, sequence, count, time_ns, pending = at
        if count != self._expected:
            self._begin_again()
            return
        self._expected += 1
        self._pending = pending
        if not pending:
            self._idle = None  # whoever is told of this message knows that it is the last
        if sequence >= self._next:
            self._next = sequence + 1
            traced = trace.read(headers_of(head)) if _TRACED in head else ""
            self._apply(recorded(sequence, time_ns / 1e9, text(subject), data, pending, traced))

    def _on_control(self, reply: str, headers: Headers) -> None:
        """A flow control request waits for an answer once all before it was taken; a heartbeat tells what was sent. Nobody
        but the server is answered: another's message could name any subject."""
        for wanted in (reply, headers.get("Nats-Consumer-Stalled", "")):
            if wanted.startswith(_FLOW_CONTROL):
                self._link.post(wanted)
        sent = headers.get("Nats-Last-Consumer", "")
        if not sent.isdecimal():
            return
        if int(sent) >= self._expected:
            self._begin_again()
        elif self._pending and self._idle is not None and self._counting is None:
            self._counting = asyncio.ensure_future(self._count())

    async def _count(self) -> None:
        """The server has nothing more to say, and yet there were messages behind the last one: what cannot be read on its
        disk is counted and never delivered. What the consumer counts now decides."""
        try:
            found = await api(self._link, f"CONSUMER.INFO.{self._stream}.{self._name}")
        except Refused:
            self._begin_again()  # the server forgot the consumer
            return
        except Exception as exc:
            self._fail(exc)
            return
        self._counting = None
        if found["num_pending"] or found["delivered"]["consumer_seq"] != self._expected - 1 or not self._pending:
            return
        log.error(
            "%d messages of stream %s before %d cannot be read: the disk of the NATS server lost them; going on without them",
            self._pending, self._stream, self._next,
        )  # fmt: skip
        self._caught_up()

    def _caught_up(self) -> None:
        """Say, once, that there is nothing more to deliver now."""
        self._pending = 0
        idle, self._idle = self._idle, None
        if idle is not None:
            try:
                idle()
            except Exception as exc:
                self._fail(exc)

    def _fail(self, error: Exception) -> None:
        if not self._doubt.done():
            self._doubt.set_exception(error)

    async def _watch(self) -> None:
        while True:
            self._heard = False
            await asyncio.sleep(_SILENCE)
            if not self._heard and self._link.connected:
                self._begin_again()

    def _begin_again(self) -> None:
        if not self._doubt.done():
            self._doubt.set_result(None)

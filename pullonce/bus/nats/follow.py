"""One reader of a stream that misses nothing: an ordered push consumer with flow control, made anew whenever in doubt.

The server counts its deliveries (the consumer sequence). A hole in that count, silence for longer than heartbeats allow, or
a reconnection means that something may have been lost; then the consumer is made again from the last sequence that was
applied. Our own, since nats-py's is blind for up to 18 s after a server restart and replays everything when it resets early.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from pullonce import trace
from pullonce.bus.nats.jetstream import NO_STREAM, Refused, api
from pullonce.bus.nats.link import Headers, Link
from pullonce.bus.nats.protocol import Position, headers_of, position, text
from pullonce.bus.ports import Recorded
from pullonce.bus.reading import recorded
from pullonce.errors import LogShortened

_HEARTBEAT = 1.0
_SILENCE = 3 * _HEARTBEAT
_TRACED = trace.HEADER.encode()
_FLOW_CONTROL = "$JS.FC."
_FORGET = 30.0
"""Seconds after which the server drops a consumer that nobody listens to."""


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


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
            if made["num_pending"] == 0 and self._idle is not None and not self._doubt.done() and self._expected == 1:
                self._idle()
            self._idle = None
            await self._doubt
        finally:
            watch.cancel()
            self._doubt.cancel()
            await self._link.drop(subscription)

    async def _make_consumer(self, inbox: str) -> dict[str, Any]:
        try:
            await self._check_length()
            name = f"CONSUMER.CREATE.{self._stream}.f{uuid.uuid4().hex}"
            made: dict[str, Any] = await api(self._link, name, self._consumer(inbox))
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
                "idle_heartbeat": _nanoseconds(_HEARTBEAT),
                "inactive_threshold": _nanoseconds(_FORGET),
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
            if not self._doubt.done():
                self._doubt.set_exception(exc)

    def _on_stored(self, at: Position, subject: bytes, head: bytes, data: bytes) -> None:
        _, sequence, count, nanoseconds, pending = at
        if count != self._expected:
            self._begin_again()
            return
        self._expected += 1
        if sequence >= self._next:
            self._next = sequence + 1
            traced = trace.read(headers_of(head)) if _TRACED in head else ""
            self._apply(recorded(sequence, nanoseconds / 1e9, text(subject), data, pending, traced))

    def _on_control(self, reply: str, headers: Headers) -> None:
        """A flow control request waits for an answer once all before it was taken; a heartbeat tells what was sent. Nobody
        but the server is answered: another's message could name any subject."""
        for wanted in (reply, headers.get("Nats-Consumer-Stalled", "")):
            if wanted.startswith(_FLOW_CONTROL):
                self._link.post(wanted)
        sent = headers.get("Nats-Last-Consumer", "")
        if sent.isdecimal() and int(sent) >= self._expected:
            self._begin_again()

    async def _watch(self) -> None:
        while True:
            self._heard = False
            await asyncio.sleep(_SILENCE)
            if not self._heard and self._link.connected:
                self._begin_again()

    def _begin_again(self) -> None:
        if not self._doubt.done():
            self._doubt.set_result(None)

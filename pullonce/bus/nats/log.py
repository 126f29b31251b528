"""The stream EVENTS over JetStream: append with ids, follow without gaps, park what is no event."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import uuid
from collections.abc import Callable, Sequence

import msgspec

from pullonce import trace
from pullonce.bus.limits import MAX_PARKED
from pullonce.bus.nats import bulk
from pullonce.bus.nats.asked import Unclear
from pullonce.bus.nats.follow import Follower
from pullonce.bus.nats.greeting import Access
from pullonce.bus.nats.jetstream import (
    MESSAGE_GONE,
    WRONG_SEQUENCE,
    Ack,
    Refused,
    api,
    call,
    last_message,
    last_stored,
    message_at,
    store,
    store_once,
)
from pullonce.bus.nats.link import Headers, Link, Unheard
from pullonce.bus.nats.socket import ConnectionLost
from pullonce.bus.ports import Extent, NotStored, Recorded
from pullonce.bus.reading import recorded
from pullonce.errors import BusUnavailable, BusUnsuitable
from schemas import routing, subjects
from schemas.events import Event, PullCancelled

_WINDOW = 1000
"""Appends in flight at a time: enough to fill the line, few enough not to be dropped by the server."""

_REASON_LIMIT = 1000

_REPLAY_WINDOW = 20_000


log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


class _WindowFull(Exception):
    """Enough was read for one turn."""


class NatsLog:
    """`bus.Log` on a link."""

    def __init__(self, link: Link, url: str, access: Access) -> None:
        self._link = link
        self._url = url
        self._access = access
        self._me = uuid.uuid4().hex
        self._count = itertools.count()

    async def append(self, event: Event, *, cause: int | None = None, subject: str = "", message_id: str = "") -> int:
        derived = routing.event_id(event)
        said = message_id or derived or f"{self._me}.{next(self._count)}"
        headers: Headers = {"Nats-Msg-Id": said, **trace.headers()}
        if cause is not None:
            headers["Pullonce-Cause"] = str(cause)
        where, body = subject or routing.event_subject(event), _encode(event)
        ack = await store(self._link, where, body, headers)
        # A stream knows a message again by its id alone, whatever its subject. One that can be guessed can be taken by
        # whoever may publish anything at all there, and what is said under it would never be stored. That of a withdrawal
        # cannot be.
        if ack.duplicate and derived and not isinstance(event, PullCancelled) and not await self._is_said(ack.seq, derived):
            log.warning("the message id of %s was taken by another message, %d: storing it under a fresh one", where, ack.seq)
            headers["Nats-Msg-Id"] = f"{said}.{uuid.uuid4().hex}"
            ack = await store(self._link, where, body, headers)
        return ack.seq

    async def _is_said(self, sequence: int, message_id: str) -> bool:
        """Whether what lies at a position of the log is the event of a message id: it says the same, or the other of two
        endings. What is gone may have been anything: what is no event and too large is removed. Saying it again is harmless."""
        found = await message_at(self._link, subjects.EVENTS_STREAM, sequence)
        if found is None:
            return False
        event = recorded(found.sequence, found.time, found.subject, found.body).event
        return event is not None and routing.event_id(event) == message_id

    async def offer(self, event: Event, *, subject: str, message_id: str, timeout: float) -> int:
        headers: Headers = {"Nats-Msg-Id": message_id, **trace.headers()}
        try:
            return (await store_once(self._link, subject, _encode(event), headers, timeout)).seq
        except Unheard as exc:
            raise NotStored("" if str(exc) == subject else str(exc)) from None
        except Refused as exc:
            raise NotStored(str(exc), later=False) from None
        except Unclear:
            raise TimeoutError(f"nothing is known of a write to {subject}") from None

    def append_soon(self, event: Event, *, message_id: str = "", done: Callable[[int | None], None]) -> None:
        said = message_id or routing.event_id(event) or f"{self._me}.{next(self._count)}"

        def take(ack: Ack | None) -> None:
            done(ack.seq if ack is not None and ack.error is None and not ack.duplicate else None)

        call(self._link, routing.event_subject(event), _encode(event), {"Nats-Msg-Id": said, **trace.headers()}, take)

    async def append_all(self, events: Sequence[Event], *, cause: int | None = None) -> list[int]:
        if len(events) == 1:
            return [await self.append(events[0], cause=cause)]
        sequences: list[int] = []
        for first in range(0, len(events), _WINDOW):
            # Tasks start in the order they were made, and each hands its message to the connection before it waits.
            window = [asyncio.ensure_future(self.append(each, cause=cause)) for each in events[first : first + _WINDOW]]
            try:
                sequences += await asyncio.gather(*window)
            except BaseException:  # not a TaskGroup: callers match the error itself, not a group of it
                for task in window:
                    task.cancel()
                await asyncio.gather(*window, return_exceptions=True)
                raise
        return sequences

    async def follow(
        self, apply: Callable[[Recorded], None], *, start: int = 1, idle: Callable[[], None] | None = None
    ) -> None:
        await Follower(self._link, subjects.EVENTS_STREAM, apply, start=start, idle=idle).run()

    async def replay(self, take: Callable[[Sequence[Recorded]], None], *, start: int, end: int) -> None:
        at, given_up = start - 1, False

        def taken(messages: Sequence[Recorded]) -> None:
            nonlocal at
            if given_up:
                raise asyncio.CancelledError  # nobody waits for this thread any more
            take(messages)
            at = messages[-1].sequence

        try:
            try:
                stream = subjects.EVENTS_STREAM
                await asyncio.to_thread(bulk.replay, self._url, self._access, stream, taken, start=start, end=end)
            except (ConnectionLost, BusUnavailable, BusUnsuitable) as exc:
                log.info(
                    "the quick way to read the log is closed (%s); reading on as usual", type(exc).__name__
                )  # may hold a secret
                while at < end and (window := await self._window(at + 1, end)):
                    await asyncio.to_thread(taken, window)
        finally:
            given_up = True

    async def _window(self, start: int, end: int) -> list[Recorded]:
        """Some of the messages from `start` to `end`; none where the log ends before."""
        found: list[Recorded] = []

        def apply(recorded: Recorded) -> None:
            if recorded.sequence <= end:
                found.append(recorded)
            if recorded.sequence >= end or recorded.pending == 0 or len(found) == _REPLAY_WINDOW:
                raise _WindowFull

        def idle() -> None:
            raise _WindowFull

        with contextlib.suppress(_WindowFull):
            await self.follow(apply, start=start, idle=idle)
        return found

    async def last_sequence(self) -> int:
        return int((await api(self._link, f"STREAM.INFO.{subjects.EVENTS_STREAM}"))["state"]["last_seq"])

    async def extent(self) -> Extent:
        info = await api(self._link, f"STREAM.INFO.{subjects.EVENTS_STREAM}")
        state, kept = info["state"], info["config"].get("max_age", 0)
        return Extent(max(1, state["first_seq"]), state["last_seq"], state["bytes"], info["created"], kept / 1e9)

    async def cut(self, first: int) -> None:
        await api(self._link, f"STREAM.PURGE.{subjects.EVENTS_STREAM}", {"seq": first})

    async def last(self, subject: str) -> Recorded | None:
        found = await last_stored(self._link, subjects.EVENTS_STREAM, subject)
        return recorded(found.sequence, found.time, found.subject, found.body) if found else None

    async def park(self, recorded: Recorded) -> None:
        headers: Headers = {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Pullonce-Subject": recorded.subject[:_REASON_LIMIT],
            "Pullonce-Size": str(len(recorded.body)),
            "Pullonce-Reason": " ".join(recorded.malformed.split())[:_REASON_LIMIT],
        }
        subject = subjects.parked_subject(subjects.EVENTS_STREAM, recorded.sequence)
        try:
            await store(self._link, subject, recorded.body[:MAX_PARKED], headers)
        except Refused as exc:
            if exc.err_code not in WRONG_SEQUENCE:  # somebody parked it already
                raise

    async def remove(self, sequence: int) -> None:
        try:
            await api(self._link, f"STREAM.MSG.DELETE.{subjects.EVENTS_STREAM}", {"seq": sequence, "no_erase": True})
        except Refused as exc:
            if exc.err_code not in MESSAGE_GONE:
                raise

    async def last_parked(self) -> int:
        found = await last_message(self._link, subjects.PARKED_STREAM, f"parked.{subjects.EVENTS_STREAM}.*")
        return int(found.subject.rpartition(".")[2]) if found else 0

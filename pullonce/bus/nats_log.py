"""The stream EVENTS over JetStream: append with ids, follow without gaps, park what is no event."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence

import msgspec

from pullonce.bus import Recorded
from pullonce.bus.nats_follow import Follower
from pullonce.bus.nats_jetstream import WRONG_SEQUENCE, Refused, api, last_message, store
from pullonce.bus.nats_link import Headers, Link
from pullonce.bus.reading import recorded
from schemas import subjects
from schemas.events import Event

_WINDOW = 1000
"""Appends in the air at a time: enough to fill the line, few enough not to be dropped by the server."""

_REASON_LIMIT = 1000

_encode = msgspec.json.Encoder().encode


class NatsLog:
    """`bus.Log` on a link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def append(self, event: Event, *, cause: int | None = None) -> int:
        headers: Headers = {"Nats-Msg-Id": subjects.event_id(event) or uuid.uuid4().hex}
        if cause is not None:
            headers["Pullonce-Cause"] = str(cause)
        return (await store(self._link, subjects.event_subject(event), _encode(event), headers)).seq

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

    async def last_sequence(self) -> int:
        return int((await api(self._link, f"STREAM.INFO.{subjects.EVENTS_STREAM}"))["state"]["last_seq"])

    async def last(self, subject: str) -> Recorded | None:
        found = await last_message(self._link, subjects.EVENTS_STREAM, subject)
        return recorded(found.sequence, found.time, found.subject, found.body) if found else None

    async def park(self, recorded: Recorded) -> None:
        headers: Headers = {
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Pullonce-Subject": recorded.subject,
            "Pullonce-Reason": " ".join(recorded.malformed.split())[:_REASON_LIMIT],
        }
        subject = subjects.parked_subject(subjects.EVENTS_STREAM, recorded.sequence)
        try:
            await store(self._link, subject, recorded.body, headers)
        except Refused as exc:
            if exc.err_code not in WRONG_SEQUENCE:  # somebody parked it already
                raise

    async def last_parked(self) -> int:
        found = await last_message(self._link, subjects.PARKED_STREAM, f"parked.{subjects.EVENTS_STREAM}.*")
        return int(found.subject.rpartition(".")[2]) if found else 0

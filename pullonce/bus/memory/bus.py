"""The bus inside one event loop: the same contract as on NATS, deterministic, with time that a test can own.

One `MemoryBus` is shared by everybody who would otherwise connect to the same server. Messages are kept as bytes and decoded
for each reader, so that what cannot be written or read fails here too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from pullonce import trace
from pullonce.bus.limits import MAX_PARKED, check_size
from pullonce.bus.memory.clock import Clock, LoopClock, Timer
from pullonce.bus.memory.orders import MemoryOrders
from pullonce.bus.memory.signals import MemorySignals, subjects_match
from pullonce.bus.memory.soon import soon
from pullonce.bus.ports import ClaimEntry, Extent, Recorded
from pullonce.bus.reading import recorded
from pullonce.errors import LogShortened, WrongRevision
from schemas import routing, subjects
from schemas.events import Event


class MemoryLog:
    """`bus.Log`. Keeps everything, and every message id, for as long as it lives."""

    def __init__(self, clock: Clock, announce: Callable[[str, bytes], None]) -> None:
        self._clock = clock
        self._announce = announce
        self._stored: list[tuple[str, bytes, float]] = []
        self._first = 1
        self._made = f"{clock.time()}"
        self._removed: set[int] = set()
        self._ids: dict[str, int] = {}
        self._traces: dict[int, str] = {}
        self._last: dict[str, int] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self.parked: dict[str, tuple[bytes, str]] = {}
        """Parked messages and their reasons, by subject."""

    async def append(self, event: Event, *, cause: int | None = None, subject: str = "", message_id: str = "") -> int:
        message_id = message_id or routing.event_id(event) or ""
        if message_id in self._ids:
            return self._ids[message_id]
        sequence = self.put(subject or routing.event_subject(event), msgspec.json.encode(event))
        if message_id:
            self._ids[message_id] = sequence
        if carried := trace.current():
            self._traces[sequence] = carried
        return sequence

    async def offer(self, event: Event, *, subject: str, message_id: str, timeout: float) -> int:
        return await self.append(event, subject=subject, message_id=message_id)

    def append_soon(self, event: Event, *, message_id: str = "", done: Callable[[int | None], None]) -> None:
        soon(self.append(event, message_id=message_id), done)

    async def append_all(self, events: Sequence[Event], *, cause: int | None = None) -> list[int]:
        return [await self.append(event, cause=cause) for event in events]

    async def follow(
        self, apply: Callable[[Recorded], None], *, start: int = 1, idle: Callable[[], None] | None = None
    ) -> None:
        position = max(start, self._first) - 1
        if start - 1 > len(self._stored):
            raise LogShortened(f"the log ends at {len(self._stored)}, but was read up to {start - 1} before")
        if position == len(self._stored) and idle is not None:
            idle()
        while True:
            while position < len(self._stored):
                position += 1
                if position in self._removed and position < len(self._stored):
                    continue
                apply(self._recorded(position, len(self._stored) - position))
            grown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(grown)
            try:
                await grown
            finally:
                self._waiting.discard(grown)

    async def replay(self, take: Callable[[Sequence[Recorded]], None], *, start: int, end: int) -> None:
        last = len(self._stored)
        wanted = range(max(start, self._first), min(end, last) + 1)
        found = [self._recorded(sequence, last - sequence) for sequence in wanted if sequence not in self._removed]
        if found:
            await asyncio.to_thread(take, found)

    async def last_sequence(self) -> int:
        return len(self._stored)

    async def extent(self) -> Extent:
        size = sum(len(body) for _, body, _ in self._stored[self._first - 1 :])
        return Extent(self._first, len(self._stored), size, self._made, 0.0)

    async def cut(self, first: int) -> None:
        self._first = min(max(first, self._first), len(self._stored) + 1)

    async def last(self, subject: str) -> Recorded | None:
        sequence = self._last.get(subject, 0)
        return self._recorded(sequence, 0) if sequence >= self._first else None

    async def park(self, recorded: Recorded) -> None:
        subject = subjects.parked_subject(subjects.EVENTS_STREAM, recorded.sequence)
        self.parked.setdefault(subject, (recorded.body[:MAX_PARKED], recorded.malformed))

    async def remove(self, sequence: int) -> None:
        self._removed.add(sequence)

    async def last_parked(self) -> int:
        prefix = subjects.parked_subject(subjects.EVENTS_STREAM, 0)[:-1]
        return max((int(subject[len(prefix) :]) for subject in self.parked if subject.startswith(prefix)), default=0)

    def put(self, subject: str, body: bytes) -> int:
        """Store whatever was sent to a subject of the log."""
        check_size(subject, len(body))
        self._stored.append((subject, body, self._clock.time()))
        sequence = self._last[subject] = len(self._stored)
        self._announce(subject, body)
        for grown in self._waiting:
            if not grown.done():
                grown.set_result(None)
        return sequence

    def _recorded(self, sequence: int, pending: int) -> Recorded:
        subject, body, time = self._stored[sequence - 1]
        return recorded(sequence, time, subject, body, pending, self._traces.get(sequence, ""))


class MemoryClaims:
    """`bus.Claims`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._revision = 0
        self._entries: dict[str, ClaimEntry] = {}
        self._timers: dict[str, Timer] = {}

    async def put(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        if ttl is not None and ttl < 1:
            raise ValueError(f"a claim lives at least 1 s, not {ttl} s")
        present = self._entries.get(key)
        if (present.revision if present else 0) != expected:
            raise WrongRevision(f"{key} has not revision {expected}")
        self._revision += 1
        self._entries[key] = ClaimEntry(value, self._revision)
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if ttl is not None:
            self._timers[key] = self._clock.call_later(ttl, lambda: self._expire(key))
        return self._revision

    def put_soon(
        self, key: str, value: bytes, *, expected: int, ttl: float | None = None, done: Callable[[int | None], None]
    ) -> None:
        soon(self.put(key, value, expected=expected, ttl=ttl), done)

    def tell(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> None:
        soon(self.put(key, value, expected=expected, ttl=ttl), lambda _: None)

    async def get(self, key: str) -> ClaimEntry | None:
        return self._entries.get(key)

    def _expire(self, key: str) -> None:
        del self._entries[key], self._timers[key]


class MemoryBus:
    """`bus.Bus`, for all users of one event loop.

    Args:
        clock: time for TTLs, delays, deadlines and timeouts; default: the event loop's.
        ack_wait: as in `Orders.ack_wait`.
    """

    def __init__(self, clock: Clock | None = None, *, ack_wait: float = 10.0) -> None:
        clock = clock or LoopClock()
        self.signals = MemorySignals(clock, self._store)
        self.log = MemoryLog(clock, self.signals.announce)
        self.claims = MemoryClaims(clock)
        self.orders = MemoryOrders(clock, ack_wait, self._park_order)

    def _store(self, subject: str, body: bytes) -> int | None:
        """What is signalled on a stream's subject is stored, as by the server. None: no stream takes it."""
        if any(subjects_match(pattern, subject) for pattern in subjects.EVENT_SUBJECTS):
            return self.log.put(subject, body)
        if any(subjects_match(pattern, subject) for pattern in subjects.ORDER_SUBJECTS):
            return self.orders.put(subject, body)
        return None

    def _park_order(self, sequence: int, subject: str, body: bytes, reason: str) -> None:
        self.log.parked.setdefault(subjects.parked_subject(subjects.ORDERS_STREAM, sequence), (body, reason))

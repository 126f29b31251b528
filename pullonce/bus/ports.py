"""The ports through which everything speaks to the bus, and the values that cross them.

Two implementations keep one contract (`tests/contract/`): `bus.nats` (JetStream and KV) and `bus.memory` (the twin that
property tests and embedding programs use).

    Log      the stream EVENTS: append a fact, fold it all in order
    Orders   the work queue ORDERS: send an order once, receive, acknowledge
    Claims   the bucket `claims`: compare-and-set
    Signals  core messages that nobody stores: progress, requests and replies
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct

from schemas.events import Event
from schemas.orders import Order

Reply = Callable[[bytes], bytes | Coroutine[Any, Any, bytes]]
"""Answers a request: at once, or by a coroutine."""


class Recorded(Struct, frozen=True, gc=False):
    """One stored message as the fold sees it. A msgspec struct, since a replay makes a hundred thousand of them a second.

    Exactly one of `event` and `malformed` is set: what is no event has a reason instead and must be parked, not folded.
    """

    sequence: int
    time: float
    """Seconds since the epoch at which the server stored it."""
    subject: str
    event: Event | None
    malformed: str = ""
    body: bytes = b""
    """The stored bytes, kept only for a malformed message."""
    pending: int = 0
    """Messages that were stored behind this one when it was delivered: 0 means the fold has caught up."""
    trace: str = ""
    """The `traceparent` it was stored with (`pullonce.trace`), where it is followed; a replay does not tell."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How far the log reaches."""

    first: int
    """Sequence of the oldest message that it still has; one behind `last` where it has none."""
    last: int
    bytes: int
    made: str
    """When it was made, as the server says: sequences of another log mean nothing."""
    kept: float
    """Seconds for which messages are kept; 0: for ever."""


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """The value of a key and its revision: what a compare-and-set must expect to replace it."""

    value: bytes
    revision: int


class NotStored(Exception):
    """One attempt to store an event came to nothing.

    Attributes:
        why: what the stream says; empty: no stream takes the subject, or none that is open yet.
        later: it may go well in a moment.
    """

    def __init__(self, why: str = "", *, later: bool = True) -> None:
        super().__init__(why)
        self.why = why
        self.later = later


class Log(Protocol):
    """The stream EVENTS: all facts in one order."""

    async def append(self, event: Event, *, cause: int | None = None, subject: str = "", message_id: str = "") -> int:
        """Store an event and return its sequence once it is stored.

        Repetition is harmless: an event with a message id (`routing.event_id`) that is stored already answers with the
        sequence of the stored copy. An unclear outcome (a timeout, a reconnect) is resolved inside: events with an id are
        sent again until the server confirms; a `pull.requested` carries a fresh id for the same reason.

        Args:
            cause: sequence of the event that led to this one; travels in a header.
            subject: another than that of `routing.event_subject`: a request's with its store and flight.
            message_id: another than that of `routing.event_id`; for an event that has none, if the caller may want to say it
                again and mean the same one.

        Raises:
            Permanent: the event is too large for the bus (`message.too_large`).
            BusClosed: the connection is closed for good.
        """
        ...

    async def offer(self, event: Event, *, subject: str, message_id: str, timeout: float) -> int:
        """One attempt to store an event under an id; its sequence. For who decides alone when to try again, and how often.

        Raises:
            NotStored: it is certainly not stored.
            TimeoutError: it may be stored, or not.
            Permanent, BusClosed: as `append`.
        """
        ...

    def append_soon(self, event: Event, *, message_id: str = "", done: Callable[[int | None], None]) -> None:
        """`append`, without waiting: `done` is called with the sequence once it is stored. None: it may be or not; append it to
        know."""
        ...

    async def append_all(self, events: Sequence[Event], *, cause: int | None = None) -> list[int]:
        """Store several events, in order, with one round trip where possible; otherwise as `append`.

        An event whose outcome a broken connection left unclear is sent again, and may come to lie behind its successors.
        """
        ...

    async def follow(
        self, apply: Callable[[Recorded], None], *, start: int = 1, idle: Callable[[], None] | None = None
    ) -> None:
        """Hand every stored message from sequence `start` on to `apply`: in order, without gaps, each once. For ever.

        Survives reconnects and server restarts; ends only by cancellation or BusClosed. `apply` is called in the event loop
        and must not block. `idle` is called when the follower knows that it has caught up and there was nothing to deliver:
        once, in place of a message whose `pending` is 0: on an empty log, or where the rest cannot be read any more.

        An exception out of `apply` ends the follower and propagates.

        Raises:
            LogShortened: the log ends before `start - 1`, or before what was already applied.
            BusClosed: the connection is closed for good.
        """
        ...

    async def replay(self, take: Callable[[Sequence[Recorded]], None], *, start: int, end: int) -> None:
        """Hand the messages that are stored from sequence `start` to `end` to `take`, in order, each once, some thousands at a
        time; for whoever reads millions. Returns when all were taken.

        `take` is called in a thread and may block: nothing more is read meanwhile. An exception out of it propagates.

        Raises:
            BusClosed: the connection is closed for good.
        """
        ...

    async def last_sequence(self) -> int:
        """Sequence of the last stored message; 0 on an empty log."""
        ...

    async def extent(self) -> Extent:
        """What of the log there is."""
        ...

    async def cut(self, first: int) -> None:
        """Remove all messages below a sequence. Repetition is harmless."""
        ...

    async def last(self, subject: str) -> Recorded | None:
        """The last message stored under a subject (no wildcards)."""
        ...

    async def park(self, recorded: Recorded) -> None:
        """Keep a malformed message, or the beginning of a large one, with its reason, on `parked.<stream>.<sequence>`.
        Repetition is harmless."""
        ...

    async def remove(self, sequence: int) -> None:
        """Take one message out of the log, for good. Repetition is harmless."""
        ...

    async def last_parked(self) -> int:
        """Highest sequence of EVENTS that was parked; 0 if none was."""
        ...


class Delivery(Protocol):
    """One order, handed to one worker. Exactly one of ack, nak and term ends it."""

    @property
    def order(self) -> Order: ...

    @property
    def attempt(self) -> int:
        """1 at the first delivery, one more at each further one, whatever ended the one before."""
        ...

    @property
    def trace(self) -> str:
        """The `traceparent` that was being worked for when the order was sent; empty: none."""
        ...

    async def ack(self) -> None:
        """The facts are stored: the order leaves the queue."""
        ...

    async def nak(self, delay: float = 0.0) -> None:
        """Give the order back; it is delivered again, to any worker, after `delay` seconds."""
        ...

    async def in_progress(self) -> None:
        """Still at it: start the acknowledgement deadline anew."""
        ...


class Orders(Protocol):
    """The work queue ORDERS: each order is carried out at least once, by one worker at a time."""

    async def send(self, order: Order) -> None:
        """Put an order into the queue; returns once it is stored.

        Raises:
            Duplicate: the same order (same subject: kind, key and revision) is queued or running.
        """
        ...

    def send_soon(self, order: Order, *, done: Callable[[int | None], None]) -> None:
        """`send`, without waiting: `done` is called with 1 once the order is in the queue. None: it may be or not; send it to
        know."""
        ...

    async def withdraw(self, order: Order) -> None:
        """Take an order out of the queue if it is still there. A worker that runs it already is not disturbed by this."""
        ...

    async def is_out(self, subject: str) -> bool:
        """Whether an order of a subject (wildcards allowed) is stored: queued or running, not acknowledged, not withdrawn."""
        ...

    async def receive(self, kind: str, store: str, deliver: Callable[[Delivery], Awaitable[None]], *, limit: int) -> None:
        """Hand orders of one kind for one store to `deliver`, at most `limit` unfinished at a time. For ever.

        Each delivery runs in a task of its own; a slot is free again when `deliver` returns. Workers of one kind and store
        share the queue. On cancellation no new order is taken, and the running tasks are cancelled and awaited. A message
        that is no order is parked and removed. An exception out of `deliver` ends the receiver and propagates.
        """
        ...

    @property
    def ack_wait(self) -> float:
        """Seconds after which an order that was neither finished nor reported in progress is delivered again."""
        ...


class Claims(Protocol):
    """The bucket `claims`."""

    async def put(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> int:
        """Compare-and-set: write if the key's revision is `expected` (0: the key is absent), and return the new revision.

        An outcome that is unclear (a timeout) is resolved inside by looking at what is stored: the value must therefore be
        unique to the writer. `ttl`: seconds (at least 1; ValueError) after which the key vanishes; None keeps it.

        Raises:
            WrongRevision: the key has another revision; nothing was written.
        """
        ...

    def put_soon(
        self, key: str, value: bytes, *, expected: int, ttl: float | None = None, done: Callable[[int | None], None]
    ) -> None:
        """`put`, without waiting: `done` is called with the new revision. None: it was not written, or may not be; put it to
        know."""
        ...

    def tell(self, key: str, value: bytes, *, expected: int, ttl: float | None = None) -> None:
        """Compare-and-set where it does not matter whether it succeeds."""
        ...

    async def get(self, key: str) -> ClaimEntry | None:
        """The present value; None where there is none (never written, deleted or expired)."""
        ...


class Subscription(Protocol):
    """A running subscription to core messages."""

    async def stop(self) -> None: ...


class Signals(Protocol):
    """Core messages: delivered to whoever listens now, at most once, never stored."""

    async def publish(self, subject: str, body: bytes) -> None:
        """Send and forget. Never raises while the bus is merely away: a signal may always be lost."""
        ...

    async def subscribe(self, subject: str, receive: Callable[[str, bytes], None], *, queue: str = "") -> Subscription:
        """Call `receive(subject, body)` for each message; returns once the server knows of the subscription.

        Messages stored in EVENTS pass by here too, as they are published. `receive` must not block. With a `queue` name,
        each message goes to one member of that group.
        """
        ...

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        """Ask, and return the first answer. Raises TimeoutError after `timeout` seconds, or at once if nobody listens."""
        ...

    async def gather(
        self, subject: str, body: bytes, *, timeout: float, take: Callable[[bytes], None] | None = None,
        nobody: Callable[[], None] | None = None,
    ) -> list[bytes]:  # fmt: skip
        """Ask everybody, and return what was answered within `timeout` seconds; `take` gets each answer as it comes, and
        `nobody` is called where the bus says that nobody listens."""
        ...

    async def echo(self, timeout: float) -> bool:
        """Whether the bus deals with a message of ours, and all that was sent before it, within `timeout` seconds."""
        ...

    async def answer(self, subject: str, reply: Reply, *, queue: str = "") -> Subscription:
        """Answer requests on a subject with `reply(body)`. A reply that takes its time is a coroutine; several may run."""
        ...

    @property
    def connected(self) -> bool:
        """The bus can be reached, as far as is known."""
        ...

    def on_disconnect(self, notify: Callable[[], None]) -> None:
        """Call `notify` whenever the connection breaks."""
        ...

    def on_reconnect(self, notify: Callable[[], None]) -> None:
        """Call `notify` after every reconnection: whatever was signalled meanwhile is lost, so look at the state again."""
        ...


class Bus(Protocol):
    """One connection, all ports. Implementations are async context managers that connect and set up what is missing."""

    @property
    def log(self) -> Log: ...

    @property
    def orders(self) -> Orders: ...

    @property
    def claims(self) -> Claims: ...

    @property
    def signals(self) -> Signals: ...

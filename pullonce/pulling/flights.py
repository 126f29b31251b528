"""The waits of one client: which of its requests wait for which flight, and how one ending answers them all.

One subscription a flight, however many wait for it. An ending is only ever taken for a request whose sequence lies below its
`covers`; after a reconnect, and now and then in a long silence, the last stored ending is looked at: level, not edge.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from functools import partial

import msgspec

from pullonce import trace
from pullonce.bus.ports import Bus, Subscription
from pullonce.pulling.identity import Identity
from schemas import events, progress, subjects
from schemas.malformed import Malformed

LOOK = 30.0
"""Seconds of waiting after which the last stored ending is looked at again."""
PRESENT = 1.0
"""Seconds that workers have to say how far they are, to who joins in the air."""
LEAVE = 2.0
"""Seconds that withdrawing a request may hold up the end of a client."""

Ending = events.PullCompleted | events.PullFailed
Tidings = events.PullResolved | events.BlobFetched | events.LayerUnpacked | progress.ProgressMessage
"""What a requester may be told while it waits."""


class _Wait:
    """All requests of this client that wait for one flight key."""

    __slots__ = ("best", "changed", "failed", "open", "opening", "subject", "subscriptions", "users", "watching")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        """What its requests are stored under."""
        self.best: Ending | None = None
        self.changed = asyncio.Event()
        self.open = asyncio.Event()
        """Set when the endings are subscribed to, or cannot be."""
        self.opening: asyncio.Future[None]
        self.subscriptions: list[Subscription] = []
        self.users = 0
        self.watching: asyncio.Future[None]
        """Looks at the stored endings now and then."""
        self.failed: Exception | None = None
        """Why they cannot be looked at any more: the bus is closed."""

    def take(self, ending: Ending) -> None:
        if self.best is None or ending.covers > self.best.covers:
            self.best = ending
            self.wake()

    def wake(self) -> None:
        """Let all look again. Whoever waits holds this event; the next round gets a fresh one."""
        self.changed.set()
        self.changed = asyncio.Event()


class Flights:
    """The flights that a client's requests wait for."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waits: dict[tuple[str, str, str], _Wait] = {}
        self._me, self._asked = uuid.uuid4().hex, 0
        self._background: set[asyncio.Task[None]] = set()
        bus.signals.on_reconnect(self._look_at_all)

    async def close(self) -> None:
        """Let the withdrawals that are under way end."""
        if self._background:
            await asyncio.wait(self._background, timeout=LEAVE)
        for task in self._background:
            task.cancel()

    async def join(self, request: events.PullRequested, identity: Identity, tell: Callable[[Tidings], None] | None) -> Ending:
        """Subscribe, append, and wait for the ending that answers the request. Cancelled, it withdraws the request."""
        key = (request.store, identity.reference, identity.flight)
        wait = await self._watch(key)
        listening = await self._listen(key, tell) if tell else []
        self._asked += 1
        append = partial(self._bus.log.append, request, subject=wait.subject, message_id=f"{self._me}.{self._asked}")
        try:
            with trace.carried(trace.current() or trace.of_environment()):
                sequence = await append()
            while wait.best is None or wait.best.covers <= sequence:
                if wait.failed is not None:
                    raise wait.failed
                await wait.changed.wait()
            return wait.best
        except asyncio.CancelledError:
            self._spawn(self._leave(request, identity, append))
            raise
        finally:
            self._unwatch(key, wait)
            for subscription in listening:
                self._spawn(subscription.stop())

    # -- endings -------------------------------------------------------------------------------------------------------

    async def _watch(self, key: tuple[str, str, str]) -> _Wait:
        """The wait for a flight key, subscribed before this returns."""
        wait = self._waits.get(key)
        if wait is None:
            wait = self._waits[key] = _Wait(subjects.pull_subject("requested", *key))
            wait.opening = asyncio.ensure_future(self._open(wait, key))
            wait.opening.add_done_callback(lambda _: wait.open.set())
            wait.watching = asyncio.ensure_future(self._look_for_ever(key, wait))
        wait.users += 1
        try:
            if not wait.open.is_set():
                await wait.open.wait()  # not for the task itself: whoever began it may leave, and the others need it
            wait.opening.result()
        except BaseException:
            self._unwatch(key, wait)
            raise
        return wait

    async def _open(self, wait: _Wait, key: tuple[str, str, str]) -> None:
        found = [subjects.pull_subject(verbed, *key) for verbed in ("completed", "failed")]
        made = [self._bus.signals.subscribe(subject, _ending_taker(wait)) for subject in found]
        wait.subscriptions += await asyncio.gather(*made)

    def _unwatch(self, key: tuple[str, str, str], wait: _Wait) -> None:
        wait.users -= 1
        if wait.users == 0 and self._waits.get(key) is wait:
            del self._waits[key]
            wait.watching.cancel()
            self._spawn(_close(wait))

    async def _look_for_ever(self, key: tuple[str, str, str], wait: _Wait) -> None:
        try:
            while True:
                await asyncio.sleep(LOOK)
                await self._look(key)
        except Exception as exc:
            wait.failed = exc
            wait.wake()

    def _look_at_all(self) -> None:
        for key in self._waits:
            self._spawn(self._look(key))

    async def _look(self, key: tuple[str, str, str]) -> None:
        """Take the last stored endings of a flight key, good or bad."""
        for verbed in ("completed", "failed"):
            recorded = await self._bus.log.last(subjects.pull_subject(verbed, *key))
            wait = self._waits.get(key)
            if wait and recorded and isinstance(recorded.event, (events.PullCompleted, events.PullFailed)):
                wait.take(recorded.event)

    async def _leave(
        self, request: events.PullRequested, identity: Identity, append: Callable[[], Coroutine[None, None, int]]
    ) -> None:
        """Withdraw a request, even one whose append has not been confirmed yet: said again, it tells where it lies."""
        sequence = await append()
        await self._bus.log.append(
            events.PullCancelled(store=request.store, reference=identity.reference, flight=identity.flight, request=sequence)
        )

    # -- progress ------------------------------------------------------------------------------------------------------

    async def _listen(self, key: tuple[str, str, str], tell: Callable[[Tidings], None]) -> list[Subscription]:
        """Tell a requester what concerns its flight, and the layers of its image once it is known which these are."""
        store, _, flight = key
        known: set[str] = {flight}

        def resolved(event: events.PullResolved) -> None:
            known.update(name for layer in event.layers for name in (layer.blob.digest, layer.chain_id) if name)
            tell(event)

        def hear(subject: str, body: bytes) -> None:
            tidings = _read(subject, body)
            if isinstance(tidings, events.PullResolved):
                resolved(tidings)
            elif tidings is not None and _subject_of(tidings) in known:
                tell(tidings)

        signals, subject = self._bus.signals, subjects.pull_subject("resolved", *key)
        filters = (subject, subjects.progress_filter(store), f"blob.fetched.{store}.*", f"layer.unpacked.{store}.*")
        listening = [await signals.subscribe(each, hear) for each in filters]
        recorded = await self._bus.log.last(subject)  # who joins in the air has missed it
        if recorded and isinstance(recorded.event, events.PullResolved):
            resolved(recorded.event)
        self._spawn(self._ask_how_far(store, tuple(known), tell))
        return listening

    async def _ask_how_far(self, store: str, names: tuple[str, ...], tell: Callable[[Tidings], None]) -> None:
        """Where everything stands by now, the layers that were finished before we listened included."""

        def take(body: bytes) -> None:
            with contextlib.suppress(Malformed):
                for word in progress.decode_now(body).works:
                    tell(word)

        question = msgspec.json.encode(names)
        await self._bus.signals.gather(subjects.progress_now_subject(store), question, timeout=PRESENT, take=take)

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(_quietly(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)


async def _close(wait: _Wait) -> None:
    await wait.opening
    for subscription in wait.subscriptions:
        await subscription.stop()


async def _quietly(work: object) -> None:
    """Work that may come to nothing when the bus is gone: the next look, or nobody, needs it."""
    with contextlib.suppress(Exception):
        await work  # type: ignore[misc]


def _ending_taker(wait: _Wait) -> Callable[[str, bytes], None]:
    def take(subject: str, body: bytes) -> None:
        with contextlib.suppress(Malformed):
            ending = events.decode(subject, body)
            if isinstance(ending, (events.PullCompleted, events.PullFailed)):
                wait.take(ending)

    return take


def _subject_of(tidings: Tidings) -> str:
    """The digest, the ChainID or the flight that something is told of."""
    names = (getattr(tidings, each, "") for each in ("chain_id", "digest", "flight"))
    return next(filter(None, names), "")


def _read(subject: str, body: bytes) -> Tidings | None:
    try:
        if subject.startswith("progress."):
            return progress.decode(body)
        event = events.decode(subject, body)
    except Malformed:
        return None
    return event if isinstance(event, (events.PullResolved, events.BlobFetched, events.LayerUnpacked)) else None

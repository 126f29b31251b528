"""One flight of an asyncio client: a conversation, carried on by one timer, and no task while nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from pullonce import trace
from pullonce.bus.ports import Bus, NotStored, Subscription
from pullonce.errors import BusClosed
from pullonce.pulling import states
from pullonce.pulling.conversation import Conversation
from pullonce.pulling.listening import Listener
from pullonce.pulling.rollcall import RollCalls
from pullonce.pulling.states import Request
from pullonce.pulling.timings import Timings
from schemas import events, subjects
from schemas.malformed import Malformed

Ending = events.PullCompleted | events.PullFailed
FlightKey = tuple[str, str, str]
"""Store, normalised reference, flight: what a pull's subjects are made of."""


class Surroundings:
    """What the flights of one client share.

    Attributes:
        url: of the bus, without secrets, for messages.
        secret: out of it those are made by which requests can be withdrawn.
        seen: parts (service, store) that were heard of.
        disturbed: what is missing may be about to come back: something was away before, or there is a supervisor.
        say: told in a line when something holds a pull up.
    """

    def __init__(self, bus: Bus, url: str, *, disturbed: bool, say: Callable[[str], None], times: Timings) -> None:
        self.bus, self.url, self.disturbed, self.say, self.times = bus, url, disturbed, say, times
        self.secret = secrets.token_hex(16)
        self.roll_calls = RollCalls(bus.signals, times)
        self.seen: set[tuple[str, str]] = set()
        self.background: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something meanwhile that may come to nothing when the bus is gone: the next look, or nobody, needs it."""
        task = asyncio.ensure_future(_quietly(work))
        self.background.add(task)
        task.add_done_callback(self.background.discard)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(Exception):
        await work


class ClientFlight:
    """One conversation, carried on in the event loop.

    Args:
        forget: called when nobody may wait for it any more.

    Attributes:
        users: who waits for it.
        listeners: who among them is told of progress.
    """

    def __init__(self, around: Surroundings, key: FlightKey, unpack: bool, forget: Callable[[ClientFlight], None]) -> None:
        self.key = key
        self.users = 0
        self.listeners: set[Listener] = set()
        self._around = around
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._talk = Conversation(
            self._loop.time(), store=key[0], unpack=unpack, reference=key[1], url=around.url, seen=around.seen,
            times=around.times, supervised=around.disturbed or not around.bus.signals.connected,
        )  # fmt: skip
        self._waiting: dict[Request, asyncio.Future[Ending]] = {}
        self._events: dict[Request, events.PullRequested] = {}
        self._listener_of: dict[Request, Listener] = {}
        self._traces: dict[Request, str] = {}
        """What each request belongs to: it may be said by a task that somebody else began."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._looking = self._subscribed = False
        self._subscriptions: list[Subscription] = []
        self._subscribing = asyncio.ensure_future(self._subscribe())

    @property
    def settled(self) -> bool:
        return self._talk.settled

    async def ask(
        self, now: float, request_id: str, event: events.PullRequested, timeout: float | None,
        listener: Listener | None = None,
    ) -> Ending:  # fmt: skip
        request = self._talk.ask(now, request_id, timeout)
        if listener is not None:
            self._listener_of[request] = listener
        answer: asyncio.Future[Ending] = self._loop.create_future()
        self._waiting[request] = answer
        self._events[request] = event
        self._traces[request] = trace.current() or trace.of_environment()
        self._go_on()
        try:
            return await answer
        except asyncio.CancelledError:
            self._talk.leave(request, self._loop.time())
            self._go_on()
            raise
        finally:
            del self._waiting[request]
            self._listener_of.pop(request, None)

    def opened(self) -> None:
        """The endings are subscribed to, on a connection that is there."""
        if self._subscribed and self._around.bus.signals.connected:
            self._talk.watched = bool(self.listeners)
            self._talk.opened(self._loop.time())
            self._go_on()

    def lost(self) -> None:
        self._talk.lost(self._loop.time(), "the connection broke")
        self._look()  # which ends when the bus is back, or tells why it never will be
        self._go_on()

    def fail(self, error: Exception) -> None:
        """There is nothing to wait for any more."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)

    def abandon(self) -> None:
        """The client ends: nobody here waits any longer."""
        self.fail(BusClosed("the client was closed"))
        for request in list(self._waiting):
            self._talk.leave(request, self._loop.time())
        self._go_on()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def unsubscribe(self) -> None:
        await self._subscribing
        for subscription in self._subscriptions:
            await subscription.stop()

    async def _subscribe(self) -> None:
        found = [subjects.pull_subject(verbed, *self.key) for verbed in ("completed", "failed")]
        try:
            self._subscriptions += await asyncio.gather(
                *(self._around.bus.signals.subscribe(each, self._hear) for each in found)
            )
        except Exception as exc:
            self.fail(exc)
            return
        self._subscribed = True
        self.opened()

    def _hear(self, subject: str, body: bytes) -> None:
        with contextlib.suppress(Malformed):
            self._take(events.decode(subject, body))

    def _take(self, event: object) -> None:
        if isinstance(event, (events.PullCompleted, events.PullFailed)):
            self._talk.ended(event.covers, event, self._loop.time())
            self._go_on()

    # -- carrying the conversation on ------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what is to be done, and come again when something is due."""
        while steps := self._talk.steps():
            for step in steps:
                self._do(step)
        due = self._talk.due
        if due == float("inf") or (self._timer is not None and not self._timer.cancelled() and self._timer_at <= due):
            return  # a timer that is early finds nothing to do
        self.stop()
        # When it is due is kept beside it: what is due at once is, with uvloop, a handle that does not tell.
        self._timer, self._timer_at = self._loop.call_at(due, self._tick), due

    def _tick(self) -> None:
        self._timer = None
        self._talk.tick(self._loop.time())
        self._go_on()
        self._forget(self)

    def _do(self, step: states.Step) -> None:
        match step:
            case states.Answer():
                for request in step.requests:
                    self._settle(request, step.ending)
            case states.Fail():
                self._settle(step.request, step.error)
            case states.Ask():
                self._around.spawn(self._append(step.request))
            case states.Withdraw():
                self._around.spawn(self._withdraw(step.request))
            case states.Look():
                self._look()
            case states.CallRoll():
                self._around.roll_calls.call(step.roll, self._go_on)
            case states.CatchUp():
                for listener in self.listeners:
                    self._around.spawn(listener.catch_up())
            case states.Say():
                self._around.say(step.line)
            case _:  # states.Reconnect: the connection of the bus looks after itself
                pass

    def _settle(self, request: Request, outcome: object) -> None:
        answer = self._waiting.get(request)
        if answer is None or answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)  # type: ignore[arg-type]

    async def _append(self, request: Request) -> None:
        event, offer = self._events[request], self._around.bus.log.offer
        event = msgspec.structs.replace(event, seal=event.seal or subjects.seal_of(self._secret(request)))
        subject = subjects.pull_subject("requested", *self.key)
        try:
            with trace.carried(self._traces[request]):
                sequence = await offer(event, subject=subject, message_id=request.id, timeout=self._around.times.ack)
        except TimeoutError:
            return  # it is said again when that is due
        except NotStored as exc:
            if exc.later:
                self._talk.put_off(request, self._loop.time(), exc.why)
            else:
                self._talk.refused(request, exc.why, self._loop.time())
        except Exception as exc:  # too large for the bus, or the bus is closed for good
            self._settle(request, exc)
            self._talk.refused(request, str(exc), self._loop.time())
        else:
            if listener := self._listener_of.get(request):
                self._around.spawn(listener.asked(sequence))
            self._talk.confirmed(request, sequence, self._loop.time())
        self._go_on()
        self._forget(self)

    async def _withdraw(self, request: Request) -> None:
        store, reference, flight = self.key
        event = events.PullCancelled(
            store=store, reference=reference, flight=flight, request=request.sequence, secret=self._secret(request)
        )
        await self._around.bus.log.append(event)

    def _secret(self, request: Request) -> str:
        """What withdraws a request: one for each, out of the one of this client."""
        return subjects.seal_of(f"{self._around.secret}.{request.id}")

    def _look(self) -> None:
        if not self._looking:
            self._looking = True
            self._around.spawn(self._look_once())

    async def _look_once(self) -> None:
        """Take the last stored endings, good and bad. Waits for a bus that is away."""
        try:
            for verbed in ("completed", "failed"):
                recorded = await self._around.bus.log.last(subjects.pull_subject(verbed, *self.key))
                if recorded:
                    self._take(recorded.event)
        except Exception as exc:
            self.fail(exc)
        finally:
            self._looking = False

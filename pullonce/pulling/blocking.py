"""One pull over the light connection: a `Conversation` with one request, driven without a thread, a task or a timer."""

import json
import os
import select
import time

from pullonce.bus.nats.greeting import Access
from pullonce.bus.nats.socket import Connection, ConnectionLost, Message, Woken
from pullonce.errors import BusError, BusUnavailable
from pullonce.pulling import states
from pullonce.pulling.conversation import Conversation
from pullonce.pulling.request import Ending, Wanted, read_ack
from pullonce.pulling.timings import NEVER, Timings
from schemas import subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT = 2.0
"""Seconds for an attempt to connect."""
LEAVE = 1.0
"""Seconds that withdrawing the request may hold up the end of the process."""

_NOBODY = 503


class BlockingPull:
    """One request and its wait.

    Args:
        find: says where the bus is; asked for every connection, since it may come back at another address. Empty: nowhere now.
        timeout: seconds until the requester gives up; None waits for as long as the services are there.
        watch: called with each message that tells of progress; None asks for none.
        say: called with a line for people when something holds the pull up.
        idle: called before each wait; says in how many seconds it wants to be called again.
        supervised: whoever serves this bus starts anew what dies.
        access: what lets us in, beside the address.

    Attributes:
        wake: descriptor that ends the wait when it becomes readable.
    """

    def __init__(
        self, find: "Callable[[], str]", wanted: Wanted, *, timeout: "float | None" = None,
        watch: "Callable[[Message], None] | None" = None, say: "Callable[[str], None]" = lambda line: None,
        idle: "Callable[[], float] | None" = None, supervised: bool = False, access: "Access | None" = None,
        times: "Timings | None" = None,
    ) -> None:  # fmt: skip
        self._find = find
        self._wanted = wanted
        self._watch = watch
        self._say = say
        self._idle = idle or (lambda: NEVER)
        self._times = times or Timings()
        self._access = access
        self._connection: Connection | None = None
        self._outcome: Ending | Exception | None = None
        self.wake: int | None = None
        now = time.monotonic()
        self._talk = Conversation(
            now, store=wanted.store, unpack=wanted.unpack, reference=wanted.identity.reference, url="", supervised=supervised,
            watched=watch is not None, times=self._times,
        )  # fmt: skip
        self._request = self._talk.ask(now, os.urandom(12).hex(), timeout)

    def wait(self) -> Ending:
        """Wait for the ending.

        Raises:
            PullTimeout: the requester's deadline passed.
            ServicesMissing: nobody does the work.
            BusUnavailable: the server is not there, or went away and did not come back.
            BusUnsuitable: we and it do not come together.
            Woken: `wake` became readable.
        """
        while self._outcome is None:
            self._go_on(NEVER)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def leave(self) -> None:
        """Withdraw the request: the work goes on only while somebody else waits. Never raises: the process is leaving."""
        now = time.monotonic()
        self._talk.leave(self._request, now)
        self.wake, end = None, now + LEAVE
        try:
            while self._connection is not None and not self._talk.settled and time.monotonic() < end:
                self._go_on(end)
            self._carry_out()
            if self._connection is not None:
                self._connection.wake = None
                self._connection.flush(LEAVE)
        except (ConnectionLost, BusError, ValueError):
            pass

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    # -- driving the conversation --------------------------------------------------------------------------------------

    def _go_on(self, until: float) -> None:
        """Do what is to be done, then wait for the next thing that happens, or is due, or for a time."""
        self._carry_out()
        if self._outcome is not None and until == NEVER:
            return
        if self._connection is None:
            self._connect()
            return
        self._connection.wake = self.wake
        try:
            wait = min(min(self._talk.due, until) - time.monotonic(), self._idle())
            message = self._connection.receive(max(wait, 0.0))
        except ConnectionLost as exc:
            self._lose(str(exc))
            return
        if message is not None:
            self._take(message)
        self._talk.tick(time.monotonic())

    def _connect(self) -> None:
        """Try once to connect, subscribe, and only then go on with the conversation."""
        now = time.monotonic()
        try:
            url = self._find()
            if not url:
                raise BusUnavailable("nothing serves this home at the moment: start it with `pullonce up`")
            patience = min(CONNECT, max(self._request.deadline - now, 0.1))
            link = Connection(url, timeout=patience, name="pullonce pull", access=self._access, wake=self.wake)
        except BusUnavailable as exc:
            self._talk.unreachable(exc, silent=exc.silent)
            if select.select([] if self.wake is None else [self.wake], [], [], self._times.pause)[0]:
                raise Woken from None
            self._talk.tick(time.monotonic())
            return
        self._connection = link
        self._talk.url = link.shown
        self._subscribe(link)
        self._talk.opened(time.monotonic())

    def _subscribe(self, link: Connection) -> None:
        wanted = self._wanted
        self._endings = {link.subscribe(wanted.subject(verbed)) for verbed in ("completed", "failed")}
        names = ("ack", "last", "pong", "echo")
        self._acks, self._looks, self._pongs, self._echoes = (link.subscribe(f"{link.inbox}.{name}") for name in names)
        if self._watch:
            self._resolved = {link.subscribe(subject) for subject in (f"{link.inbox}.resolved", wanted.subject("resolved"))}
            for subject in (f"{link.inbox}.now", *wanted.news()):
                link.subscribe(subject)

    def _lose(self, cause: str) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._talk.lost(time.monotonic(), cause)

    def _carry_out(self) -> None:
        while steps := self._talk.steps():
            for step in steps:
                self._do(step)

    def _do(self, step: states.Step) -> None:
        link = self._connection
        match step:
            case states.Say():
                self._say(step.line)
            case states.Answer():
                self._outcome = self._outcome or step.ending  # type: ignore[assignment]
            case states.Fail():
                self._outcome = self._outcome or step.error
            case states.Reconnect():
                self._lose("it does not answer")
            case _ if link is not None:
                self._send(step, link)

    def _send(self, step: states.Step, link: Connection) -> None:
        wanted = self._wanted
        match step:
            case states.Ask():
                subject, reply = wanted.subject("requested"), f"{link.inbox}.ack"
                link.publish(subject, wanted.body(), reply=reply, message_id=self._request.id, trace=wanted.trace)
            case states.Withdraw():
                sequence = self._request.sequence
                withdrawal = subjects.withdrawal_id(sequence, wanted.secret)
                link.publish(wanted.subject("cancelled"), wanted.cancelled(sequence), message_id=withdrawal)
            case states.Look():
                for verbed in ("completed", "failed"):
                    self._last(link, verbed, "last")
            case states.CatchUp():
                self._ask_how_far(link, {})
                self._last(link, "resolved", "resolved")
            case states.CallRoll():
                self._roll = step.roll
                link.publish(subjects.PING_SUBJECT, b"", reply=f"{link.inbox}.pong")
                link.publish(f"{link.inbox}.echo", b"")

    def _last(self, link: Connection, verbed: str, inbox: str) -> None:
        """Ask for the last stored event of a kind. By its subject, since a client may read no other."""
        subject = f"$JS.API.DIRECT.GET.{subjects.EVENTS_STREAM}.{self._wanted.subject(verbed)}"
        link.publish(subject, b"", reply=f"{link.inbox}.{inbox}")

    def _ask_how_far(self, link: Connection, resolved: "dict[str, object]") -> None:
        """Who joins in the middle has missed what was said so far, and what was finished before."""
        names = self._wanted.names(resolved)
        link.publish(subjects.progress_now_subject(self._wanted.store), json.dumps(names).encode(), reply=f"{link.inbox}.now")

    # -- what came -----------------------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        now, sid = time.monotonic(), message.sid
        try:
            if sid in self._endings or (sid == self._looks and not message.status):
                ending = Ending(message.body)
                self._talk.ended(ending.covers, ending, now)
            elif sid == self._acks:
                self._confirm(message, now)
            elif sid == self._pongs:
                self._hear(message)
            elif sid == self._echoes:
                self._roll.echoed()
            elif sid == self._looks:
                if message.status == _NOBODY:
                    self._talk.unreadable(now)
            elif self._watch and not message.status:
                self._tell(message)
        except ValueError:
            pass  # what is no event ends nothing

    def _confirm(self, message: Message, now: float) -> None:
        sequence, why, later = (0, "", True) if message.status else read_ack(message.body)
        if sequence:
            self._talk.confirmed(self._request, sequence, now)
        elif later:
            self._talk.put_off(self._request, now, why)
        else:
            self._talk.refused(self._request, why, now)

    def _hear(self, message: Message) -> None:
        if message.status:
            self._roll.nobody()
        else:
            pong = json.loads(message.body)
            self._roll.present(str(pong.get("service", "")), str(pong.get("store", "")))

    def _tell(self, message: Message) -> None:
        if self._watch:
            self._watch(message)
        if self._connection is not None and message.sid in self._resolved:
            self._ask_how_far(self._connection, json.loads(message.body))

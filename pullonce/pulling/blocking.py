"""One pull over the thin client: append the request, then wait for the ending that answers it.

The protocol is that of docs/architecture.md, "A waiter costs nothing": subscribe first, then append, then wait for an
ending whose `covers` lies above the request's own sequence. After a reconnect, and now and then in a long silence, the last
stored ending is read instead: level, not edge. Nothing here is a thread, a task or a timer.
"""

import json
import os
import select
import time

from pullonce.bus.nats.socket import Connection, ConnectionLost, Message, Woken
from pullonce.errors import BusError, BusUnavailable, PullTimeout, ServicesMissing
from pullonce.pulling.parts import missing_parts
from pullonce.pulling.request import Ending, Wanted
from schemas import subjects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

QUIET = 1.0
"""Seconds without an ending after which the client asks who is there at all."""
ANSWER = 1.0
"""Seconds that a service has to answer a ping."""
PATIENCE = 10.0
"""Seconds that a part may be missing (a supervisor restarts it) while others answer."""
LOOK = 30.0
"""Seconds of silence after which the last ending is read and services are pinged again."""
ACK = 5.0
"""Seconds after which an unconfirmed request is sent again, under its own id."""
SETTLING = 5.0
"""Seconds that a server which was restarted may take to open its streams."""
AWAY = 30.0
"""Seconds that the server may be away."""
PAUSE = 0.1
"""Seconds between two attempts to reach it, or the streams of one that was restarted."""

_NOBODY = 503


class Pull:
    """One request and its wait.

    Args:
        timeout: seconds until the requester gives up; None waits for as long as the services are there.
        watch: called with each message that tells of progress; None asks for none.
        say: called with a line for people when something holds the pull up.
        patience: seconds that the server may take to come up at the start.

    Raises:
        BusUnavailable, BusUnsuitable, Unsupported: as `Connection`.

    Attributes:
        wake: descriptor that ends the wait when it becomes readable.
    """

    def __init__(
        self, url: str, wanted: Wanted, *, timeout: "float | None" = None, watch: "Callable[[Message], None] | None" = None,
        say: "Callable[[str], None]" = lambda line: None, patience: float = 1.0,
    ) -> None:  # fmt: skip
        self._url = url
        self._wanted = wanted
        self._watch = watch
        self._say = say
        self._patient = timeout is not None
        self._deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        self._id = os.urandom(12).hex()
        self._sequence = 0
        self._best: Ending | None = None
        self._present: set[tuple[str, str]] = set()
        self._missing_since = 0.0
        self._reconnected = False
        self.wake: int | None = None
        self._begin(time.monotonic() + patience)

    def wait(self) -> Ending:
        """Wait for the ending.

        Raises:
            PullTimeout: the requester's deadline passed; the request is withdrawn.
            ServicesMissing: nobody does the work.
            BusUnavailable: the server went away and did not come back.
            Woken: `wake` became readable.
        """
        self._connection.wake = self.wake
        while True:
            try:
                self._receive()
            except ConnectionLost as exc:
                self._reconnect(exc)
            if self._best is not None and self._sequence and self._best.covers > self._sequence:
                return self._best

    def leave(self) -> None:
        """Withdraw the request: the work goes on only while somebody else waits. Never raises: the process is leaving."""
        self._connection.wake = None
        try:
            end = time.monotonic() + 1.0
            while not self._sequence and time.monotonic() < end:
                self._handle(self._connection.receive(end - time.monotonic()))
            if self._sequence:
                event = {
                    "type": "pull.cancelled", "store": self._wanted.store, "reference": self._wanted.identity.reference,
                    "flight": self._wanted.identity.flight, "request": self._sequence,
                }  # fmt: skip
                self._connection.publish(
                    self._wanted.subject("cancelled"), json.dumps(event).encode(), message_id=f"pull.cancelled.{self._sequence}"
                )
                self._connection.flush()
        except (ConnectionLost, BusError, ValueError):
            pass

    def close(self) -> None:
        self._connection.close()

    # -- the conversation ----------------------------------------------------------------------------------------------

    def _begin(self, until: float) -> None:
        while True:
            try:
                return self._open(2.0)
            except BusUnavailable:
                if time.monotonic() + PAUSE > min(until, self._deadline):
                    raise
                time.sleep(PAUSE)

    def _open(self, timeout: float) -> None:
        """Connect, subscribe, and only then ask (or, where the request is stored already, look)."""
        link = self._connection = Connection(self._url, timeout=timeout, name="pullonce pull")
        link.wake = self.wake
        self._endings = {link.subscribe(self._wanted.subject(verbed)) for verbed in ("completed", "failed")}
        self._acks = link.subscribe(f"{link.inbox}.ack")
        self._looks = link.subscribe(f"{link.inbox}.last")
        self._pongs = link.subscribe(f"{link.inbox}.pong")
        if self._watch:
            link.subscribe(f"{link.inbox}.now")
        if self._watch:
            for subject in self._tidings():
                link.subscribe(subject)
            self._ask_how_far({})
        now = time.monotonic()
        self._opened = now
        self._ping_at, self._judge_at, self._look_at = now + QUIET, float("inf"), now + LOOK
        self._ask_at = float("inf")
        if self._sequence:
            self._look()
        else:
            self._ask()

    def _tidings(self) -> "tuple[str, ...]":
        store = self._wanted.store
        return (
            self._wanted.subject("resolved"), subjects.progress_filter(store), f"blob.fetched.{store}.*",
            f"layer.unpacked.{store}.*",
        )  # fmt: skip

    def _ask(self) -> None:
        link = self._connection
        subject, wanted = self._wanted.subject("requested"), self._wanted
        link.publish(subject, wanted.body(), reply=f"{link.inbox}.ack", message_id=self._id, trace=wanted.trace)
        self._ask_at = time.monotonic() + ACK

    def _look(self) -> None:
        """Read the last stored ending of this flight, good or bad."""
        for verbed in ("completed", "failed"):
            self._last(verbed)
        self._look_at = time.monotonic() + LOOK

    def _last(self, verbed: str) -> None:
        query = json.dumps({"last_by_subj": self._wanted.subject(verbed)}).encode()
        link = self._connection
        link.publish(f"$JS.API.DIRECT.GET.{subjects.EVENTS_STREAM}", query, reply=f"{link.inbox}.last")

    def _receive(self) -> None:
        """Wait for the next message or for the next thing that is due, whichever comes first."""
        now = time.monotonic()
        due = min(self._deadline, self._ask_at, self._ping_at, self._judge_at, self._look_at)
        message = self._connection.receive(max(due - now, 0.0)) if due > now else None
        if message is not None:
            self._handle(message)
        else:
            self._do_what_is_due(time.monotonic())

    def _do_what_is_due(self, now: float) -> None:
        if now >= self._deadline:
            raise PullTimeout("the pull did not end in time; the work goes on only if somebody else waits for it")
        if now >= self._ask_at:
            self._ask()
        if now >= self._look_at:
            self._look()
            if self._ping_at == self._judge_at == float("inf"):
                self._ping_at = now
        if now >= self._ping_at:
            self._present.clear()
            self._connection.publish(subjects.PING_SUBJECT, b"", reply=f"{self._connection.inbox}.pong")
            self._ping_at, self._judge_at = float("inf"), now + ANSWER
        if now >= self._judge_at:
            self._judge(now)

    def _handle(self, message: "Message | None") -> None:
        if message is None:
            return
        if message.sid in self._endings or (message.sid == self._looks and not message.status):
            self._take(message)
        elif message.sid == self._acks:
            self._confirmed(message)
        elif message.sid == self._pongs:
            if message.status:
                self._judge_at = 0.0  # nobody is there to answer: no need to wait for answers
            else:
                pong = json.loads(message.body)
                self._present.add((pong.get("service", ""), pong.get("store", "")))
        elif message.sid == self._looks:
            if message.status == _NOBODY:
                # A server that has only just started opens its streams one by one; the ending may lie in there.
                self._look_at = time.monotonic() + PAUSE
        elif self._watch:
            self._watch(message)

    def _take(self, message: Message) -> None:
        ending = Ending(message.body)
        if ending.fields.get("type") == "pull.resolved":
            if self._watch:
                self._watch(message)
                self._ask_how_far(ending.fields)
        elif self._best is None or ending.covers > self._best.covers:
            self._best = ending

    def _ask_how_far(self, resolved: "dict[str, object]") -> None:
        """Who joins in the air has missed what was said so far, of the layers or of resolving, and what was finished before."""
        layers = resolved.get("layers")
        names = [each.get("chain_id") for each in layers] if isinstance(layers, list) else [self._wanted.identity.flight]
        names += [each["blob"]["digest"] for each in layers] if isinstance(layers, list) else []
        subject, link = subjects.progress_now_subject(self._wanted.store), self._connection
        link.publish(subject, json.dumps([name for name in names if name]).encode(), reply=f"{link.inbox}.now")

    def _confirmed(self, message: Message) -> None:
        if message.status:
            # Nobody stores requests. A server that has only just started may still be opening its streams.
            if time.monotonic() - self._opened > SETTLING:
                raise ServicesMissing(f"no stream at {self._url} takes requests: pullonce has never run there")
            self._ask_at = time.monotonic() + 0.1
            return
        ack = json.loads(message.body)
        if "error" in ack:
            raise BusError(f"the bus does not store the request: {ack['error'].get('description', ack['error'])}")
        self._ask_at = float("inf")
        self._sequence = int(ack["seq"])
        if self._reconnected:
            self._look()  # the request may have been stored, and ended, before the connection broke
        if self._watch:
            self._last("resolved")  # who joins in the air has missed it

    # -- who is there --------------------------------------------------------------------------------------------------

    def _judge(self, now: float) -> None:
        """Say what is missing: at once where nobody answers at all, after some patience where a part may be restarting."""
        self._judge_at = float("inf")
        missing = missing_parts(self._present, self._wanted.store, self._wanted.unpack)
        if not missing:
            self._missing_since = 0.0
            return
        if not self._present and not self._reconnected:
            raise ServicesMissing(f"no part of pullonce answers at {self._url}; start it with `pullonce up`")
        if not self._missing_since:
            self._missing_since = now
            self._say(f"waiting for {' and '.join(missing)} to come up")
        elif now - self._missing_since > PATIENCE and not self._patient:
            raise ServicesMissing(f"missing at {self._url}: {', '.join(missing)}")
        self._ping_at = now

    def _reconnect(self, cause: ConnectionLost) -> None:
        self._connection.close()
        self._say(f"the bus is away ({cause}); trying again")
        self._reconnected = True
        gone = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= self._deadline:
                raise PullTimeout("the pull did not end in time, and the bus is away")
            if now - gone > AWAY and not self._patient:
                raise BusUnavailable(f"the bus at {self._url} went away and did not come back")
            try:
                self._open(min(2.0, self._deadline - now))
                return
            except BusUnavailable:
                if select.select([] if self.wake is None else [self.wake], [], [], PAUSE)[0]:
                    raise Woken from None

"""What a client says to the bus and waits for: one flight, and all requests of this client that wait for it. Pure.

Whoever drives it tells what happened (`opened`, `confirmed`, `ended`, `tick`…) and carries out the steps that follow. The
light client (`blocking`) and the asyncio client (`flights`) drive the same conversation, so a pull behaves alike in both.

The protocol is that of docs/architecture.md, "A waiter costs nothing": subscribe first, then ask, then wait for an ending
whose `covers` lies above the request's own sequence. After a reconnect, and now and then in a long silence, the last stored
ending is read instead: level, not edge. `states` has the table by which a request moves, `attendance` tells a bus that stands
still from parts that are missing, `steps` are what is to be done.
"""

from pullonce.errors import BusError, BusUnavailable, PullTimeout, ServicesMissing
from pullonce.pulling import states
from pullonce.pulling.states import Request
from pullonce.pulling.timings import NEVER, Timings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pullonce.pulling.attendance import Attendance


class Conversation:
    """One flight, as one client waits for it. All times are seconds of one monotonic clock.

    Args:
        store, unpack: of the flight; they decide who is needed.
        reference: what people call the image.
        url: of the bus, without secrets.
        supervised: whoever serves this bus starts anew what dies, so that nobody there means not yet.
        watched: somebody wants to be told of progress.
        seen: parts (service, store) that this client has heard of before; shared by its conversations.
    """

    def __init__(
        self, now: float, *, store: str, unpack: bool, reference: str, url: str, supervised: bool = False,
        watched: bool = False, seen: "set[tuple[str, str]] | None" = None, times: "Timings | None" = None,
    ) -> None:  # fmt: skip
        self.url = url
        self.watched = watched
        self._store, self._unpack, self._reference = store, unpack, reference
        self._times = times or Timings()
        self._requests: dict[Request, None] = {}
        self._steps: list[states.Step] = []
        self._covers = 0
        self._ending: object = None
        self._open = self._ever_open = self._reopened = False
        self._opened_at = self._away_since = now
        self._unreachable: Exception | None = None
        self._disturbed = supervised
        """What is missing may be about to come back."""
        self._look_at = self._ask_at = self._call_at = self._deadline = NEVER
        """When something is due at the earliest."""
        self._seen: set[tuple[str, str]] = set() if seen is None else seen
        self._attendance: Attendance | None = None
        """Made when the roll is called first: most pulls end before."""
        self._said: dict[str, str] = {}
        """What is not well → what people were told of it."""

    # -- the requester -------------------------------------------------------------------------------------------------

    def ask(self, now: float, request_id: str, timeout: "float | None" = None) -> Request:
        """Want the image; give up after `timeout` seconds, or, without one, when what is needed for it stays away."""
        request = Request(request_id, timeout, NEVER if timeout is None else now + timeout)
        self._requests[request] = None
        self._deadline = min(self._deadline, request.deadline)
        if self._open:
            self._turn(request, states.OPENED, now)
        return request

    def leave(self, request: Request, now: float) -> None:
        """Its requester does not want it any more."""
        request.deadline = NEVER
        self._turn(request, states.LEFT, now)

    @property
    def settled(self) -> bool:
        """Nobody waits, and all that is to be withdrawn is known to lie in the log."""
        return not self._requests

    # -- the connection ------------------------------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """There is a connection, and the endings are subscribed to."""
        self._reopened, self._ever_open = self._ever_open, True
        self._open, self._opened_at, self._unreachable = True, now, None
        self._said.pop("bus", None)
        self._call_roll(now + self._times.quiet)
        self._look_at = now + self._times.look
        if self.watched:
            self._steps.append(states.CatchUp())
        for request in list(self._requests):
            self._turn(request, states.OPENED, now)
        if any(request.state == states.STORED for request in self._requests):
            self._look(now)

    def lost(self, now: float, cause: str) -> None:
        """The connection broke."""
        if self._open:
            self._open, self._away_since, self._disturbed = False, now, True
            self._look_at = self._ask_at = NEVER
            self._call_roll(NEVER)
            self._say("bus", f"the bus is away ({cause}); trying again")

    def unreachable(self, error: Exception, *, silent: bool = False) -> None:
        """An attempt to connect has failed; `silent`: somebody is there and says nothing."""
        self._unreachable = error
        self._disturbed = self._disturbed or silent
        if self._disturbed and not self._ever_open:
            self._say("bus", "the bus does not answer yet; trying again")

    # -- the bus -------------------------------------------------------------------------------------------------------

    def confirmed(self, request: Request, sequence: int, now: float) -> None:
        """The request is stored, at this sequence."""
        self._said.pop("stream", None)
        request.sequence = sequence
        self._turn(request, states.CONFIRMED, now)

    def put_off(self, request: Request, now: float, why: str = "") -> None:
        """The request is not stored: no stream takes it (`why` is empty), or the stream says why it cannot now."""
        self._turn(request, states.PUT_OFF, now)
        if why:
            self._say("stream", f"the bus stores nothing at the moment ({why}); trying again")
        elif not self._disturbed and now - self._opened_at > self._times.settling:
            error = ServicesMissing(f"no stream at {self.url} takes requests: pullonce has never run there")
            self._give_up(request, error, now)

    def refused(self, request: Request, why: str, now: float) -> None:
        """The bus will never store the request."""
        if request.state == states.ASKED:
            self._steps.append(states.Fail(request, BusError(f"the bus does not store the request: {why}")))
        self._turn(request, states.REFUSED, now)

    def ended(self, covers: int, ending: object, now: float) -> None:
        """An ending of the flight was heard or read: it answers every request that is stored below `covers`."""
        if covers > self._covers:
            self._covers, self._ending = covers, ending
            self._release(list(self._requests), now)

    def unreadable(self, now: float) -> None:
        """Nobody lets stored endings be read: a server that has only just started opens its streams one by one."""
        if self._open:
            self._look_at = now + self._times.pause

    # -- the clock -----------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When to call `tick` if nothing happens before."""
        if not self._open:
            return min(self._deadline, self._away_since + self._away)
        roll = self._call_at if self._attendance is None else min(self._call_at, self._attendance.due)
        return min(self._deadline, self._ask_at, self._look_at, roll)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._deadline:
            self._expire(now)
        if not self._open:
            if now - self._away_since >= self._away:
                self._stay_away(now)
            return
        if now >= self._ask_at:
            self._repeat(now)
        if now >= self._look_at:
            self._look(now)
            if self._call_at == NEVER and (self._attendance is None or self._attendance.due == NEVER):
                self._call_at = now
        self._attend(now)

    def steps(self) -> "list[states.Step]":
        """What is to be done now. Whoever calls takes it on."""
        steps, self._steps = self._steps, []
        return steps

    # -- inside --------------------------------------------------------------------------------------------------------

    def _turn(self, request: Request, event: str, now: float) -> None:
        state, act = states.TABLE.get((request.state, event), (request.state, None))
        if act is None:
            return
        request.state = state
        if state == states.ENDED:
            self._requests.pop(request, None)
        if act == states.ASK:
            self._ask_again(request, now + self._times.ack)
            self._steps.append(states.Ask(request))
        elif act == states.WAIT:
            self._ask_again(request, now + self._times.pause)
        elif act == states.WITHDRAW:
            self._steps.append(states.Withdraw(request))
        elif act == states.CHECK:
            self._release([request], now)
            if self._reopened and request.state == states.STORED:
                self._look(now)  # it may have been stored, and have ended, before the connection broke

    def _ask_again(self, request: Request, at: float) -> None:
        request.ask_at = at
        self._ask_at = min(self._ask_at, at)

    def _release(self, requests: "list[Request]", now: float) -> None:
        answered = [each for each in requests if each.state == states.STORED and each.sequence < self._covers]
        for request in answered:
            self._turn(request, states.COVERED, now)
        if answered:
            self._steps.append(states.Answer(answered, self._ending))

    def _look(self, now: float) -> None:
        self._steps.append(states.Look())
        self._look_at = now + self._times.look

    def _repeat(self, now: float) -> None:
        """Say again what has not been confirmed. A bus that stands still has it already."""
        unconfirmed = [each for each in self._requests if each.state in (states.ASKED, states.LEAVING)]
        self._ask_at = NEVER
        for request in unconfirmed:
            if self._silent:
                request.ask_at = now + self._times.ack
            if now >= request.ask_at:
                self._turn(request, states.OVERDUE, now)
            self._ask_at = min(self._ask_at, request.ask_at)

    def _call_roll(self, at: float) -> None:
        self._call_at = at
        if self._attendance is not None:
            self._attendance.stop()

    @property
    def _silent(self) -> bool:
        """The bus stands still."""
        return self._attendance is not None and self._attendance.silent

    def _attend(self, now: float) -> None:
        """Deal with who is there and who is not."""
        if now >= self._call_at:
            self._call_at = NEVER
            if self._attendance is None:
                from pullonce.pulling.attendance import Attendance

                self._attendance = Attendance(self._store, self._unpack, self._seen, self._times)
            self._attendance.begin(now)
        if self._attendance is not None and (found := self._attendance.tick(now)):
            self._find(found, self._attendance, now)

    def _find(self, found: str, roll: "Attendance", now: float) -> None:
        if found == roll.CALL:
            self._steps.append(states.CallRoll(roll))
        elif found == roll.SILENT:
            self._disturbed = True
            self._say("bus", "the bus does not answer; waiting for it")
        elif found == roll.STALE:
            self._steps.append(states.Reconnect())
        elif found == roll.BACK:
            self._said.pop("bus", None)
            self._look(now)
            self._attend(now)
        elif found == roll.COMPLETE:
            self._said.pop("parts", None)
        elif found == roll.NOBODY and not self._disturbed:
            why = f"no part of pullonce answers at {self.url} ({roll.all} are missing); start it with `pullonce up`"
            self._give_up_all(ServicesMissing(why), now, patient=False)
        else:
            self._miss(roll, now)

    def _miss(self, roll: "Attendance", now: float) -> None:
        """Say what is missing, and give up when it stays away: soon if it was never there, later if it was."""
        self._say("parts", f"waiting for {roll.listed} to come up")
        limit = self._times.away if self._disturbed or roll.known else self._times.patience
        if now - roll.missing_since >= limit:
            self._give_up_all(ServicesMissing(f"missing at {self.url}: {', '.join(roll.missing)}"), now)

    @property
    def _away(self) -> float:
        """Seconds that the bus may be away."""
        return self._times.away if self._ever_open or self._disturbed else self._times.first

    def _stay_away(self, now: float) -> None:
        if self._ever_open or self._unreachable is None:
            self._give_up_all(BusUnavailable(f"the bus at {self.url} went away and did not come back"), now)
        else:
            # A wrong address does not become right by waiting, whatever time was given.
            self._give_up_all(self._unreachable, now, patient=self._disturbed)
        self._away_since = now

    def _expire(self, now: float) -> None:
        missing = self._attendance.missing if self._open and self._attendance is not None else []
        cause = f"; missing: {', '.join(missing)}" if missing else ""
        cause = "; the bus is away" if not self._open or self._silent else cause
        for request in [each for each in self._requests if now >= each.deadline]:
            said = f"{self._reference} did not end in time: it was not there after {request.timeout:g} s"
            self._give_up(request, PullTimeout(f"{said}; the work goes on if others wait{cause}"), now)
        self._deadline = min((each.deadline for each in self._requests), default=NEVER)

    def _give_up_all(self, error: Exception, now: float, *, patient: bool = True) -> None:
        """Give up what has no deadline of its own; without `patient`, what has one as well."""
        for request in list(self._requests):
            if request.timeout is None or not patient:
                self._give_up(request, error, now)

    def _give_up(self, request: Request, error: Exception, now: float) -> None:
        if request.state not in (states.LEAVING, states.ENDED):
            self._steps.append(states.Fail(request, error))
            self.leave(request, now)

    def _say(self, about: str, line: str) -> None:
        """Once, until it is well again or something else is amiss with it."""
        if self._said.get(about) != line:
            self._said[about] = line
            self._steps.append(states.Say(line))

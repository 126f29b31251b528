"""Whatever befalls the bus, the parts and the acknowledgements: each requester gets its one answer, and it is its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pullonce.pulling.attendance import Attendance
from pullonce.pulling.conversation import Conversation
from pullonce.pulling.states import Answer, Ask, CallRoll, Fail, Look, Reconnect, Request, Step, Withdraw

PARTS = (("coordinator", ""), ("fetcher", "default"), ("unpacker", "default"))
DEEDS = (
    "ask",
    "ask until",
    "leave",
    "end",
    "break",
    "mend",
    "freeze",
    "thaw",
    "desert",
    "return",
    "deafen",
    "hear",
    "refuse",
    "take",
)


class World:
    """A bus with one flight, its parts, and one client; all of it deterministic."""

    def __init__(self) -> None:
        self.now = 0.0
        self.talk = Conversation(0.0, store="default", unpack=True, reference="redis", url="nats://bus", supervised=True)
        self.connected = self.frozen = self.deserted = self.deaf = self.refusing = False
        self.log: list[str] = [""]
        """What is stored, by its sequence: the id of a request, or nothing."""
        self.covers = 0
        self.waiting: list[Step] = []
        """What a bus that stands still has not dealt with."""
        self.requests: list[Request] = []
        self.outcomes: dict[Request, list[object]] = {}
        self.left: set[Request] = set()
        self.withdrawn: list[int] = []

    def do(self, deed: str) -> None:
        match deed:
            case "ask" | "ask until":
                request = self.talk.ask(self.now, f"{len(self.requests)}", 30.0 if deed == "ask until" else None)
                self.requests.append(request)
                self.outcomes[request] = []
            case "leave":
                for request in self.requests[:1]:
                    if not self.outcomes[request]:
                        self.left.add(request)
                    self.talk.leave(request, self.now)
            case "end":
                self.covers = len(self.log)
                self.log.append("")
                if self.connected and not self.frozen:
                    self.talk.ended(self.covers, self.covers, self.now)
            case "break" if self.connected:
                self._lose()
            case "mend" if not self.connected and not self.frozen:
                self.connected = True
                self.talk.opened(self.now)
                self._deal_with_what_waits()
            case "freeze":
                self.frozen = True
            case "thaw":
                self.frozen = False
                if self.connected:
                    self._deal_with_what_waits()
                    self.talk.ended(self.covers, self.covers, self.now)
            case "desert" | "return":
                self.deserted = deed == "desert"
            case "deafen" | "hear":
                self.deaf = deed == "deafen"
            case "refuse" | "take":
                self.refusing = deed == "refuse"
        self._carry_out()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(20_000):
            if self.talk.due > end:
                self.now = end
                return
            self.now = max(self.now, self.talk.due)
            self.talk.tick(self.now)
            assert self.talk.due > self.now, "what was due is due again at once"
            self._carry_out()
        raise AssertionError("it never comes to rest")

    def _lose(self) -> None:
        self.connected = False
        self.waiting = [step for step in self.waiting if isinstance(step, Withdraw)]
        self.talk.lost(self.now, "it broke")

    def _carry_out(self) -> None:
        while steps := self.talk.steps():
            for step in steps:
                match step:
                    case Answer():
                        for request in step.requests:
                            assert 0 < request.sequence < step.ending, "answered by an ending that does not cover it"  # type: ignore[operator]
                            self.outcomes[request].append(step.ending)
                    case Fail():
                        self.outcomes[step.request].append(step.error)
                    case Reconnect() if self.connected:
                        self._lose()
                    case _ if self.connected and not self.frozen:
                        self._deal_with(step)
                    case _ if self.connected or isinstance(step, Withdraw):
                        self.waiting.append(step)

    def _deal_with_what_waits(self) -> None:
        waiting, self.waiting = self.waiting, []
        for step in waiting:
            self._deal_with(step)

    def _deal_with(self, step: Step) -> None:
        match step:
            case Ask():
                self._store(step.request)
            case Withdraw():
                self.withdrawn.append(step.request.sequence)
            case Look():
                self.talk.ended(self.covers, self.covers, self.now)
            case CallRoll():
                self._answer(step.roll)

    def _store(self, request: Request) -> None:
        if self.refusing:
            self.talk.put_off(request, self.now)
            return
        if request.id not in self.log:
            self.log.append(request.id)
        if not self.deaf:  # else the acknowledgement is lost
            self.talk.confirmed(request, self.log.index(request.id), self.now)

    def _answer(self, roll: Attendance) -> None:
        for part in () if self.deserted else PARTS:
            roll.present(*part)
        if self.deserted:
            roll.nobody()
        roll.echoed()


@given(st.lists(st.tuples(st.sampled_from(DEEDS), st.sampled_from((0.0, 0.5, 3.0, 25.0, 70.0))), max_size=40))
def test_each_requester_gets_its_one_answer(story: list[tuple[str, float]]) -> None:
    world = World()
    for deed, seconds in story:
        world.do(deed)
        world.pass_time(seconds)
    # All is well in the end, and stays so for longer than any pause of a client.
    for deed in ("thaw", "mend", "return", "hear", "take"):
        world.do(deed)
    world.pass_time(60.0)
    world.do("end")
    world.pass_time(60.0)
    for request in world.requests:
        answers = world.outcomes[request]
        assert len(answers) == (0 if request in world.left else 1), "one answer, or none for who has left"
        gave_up = request in world.left or isinstance(answers[0], Exception)
        stored = world.log.count(request.id)
        assert stored <= 1
        if gave_up and request.sequence:
            assert request.sequence in world.withdrawn, "who gives up is not waited for"
        if not gave_up:
            assert stored == 1 and request.sequence not in world.withdrawn
    assert len(world.withdrawn) == len(set(world.withdrawn))
    assert world.talk.settled

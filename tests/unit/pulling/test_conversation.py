"""What a client says and waits for, by a clock and a bus of the tests' own: every pause there is costs nothing here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pullonce.errors import BusError, BusUnavailable, PullTimeout, ServicesMissing
from pullonce.pulling import states
from pullonce.pulling.attendance import Attendance
from pullonce.pulling.conversation import Conversation
from pullonce.pulling.states import (
    TABLE,
    Answer,
    Ask,
    CallRoll,
    CatchUp,
    Fail,
    Look,
    Reconnect,
    Request,
    Say,
    Step,
    Withdraw,
)
from pullonce.pulling.timings import Timings

STATES = (states.WANTED, states.ASKED, states.STORED, states.LEAVING, states.ENDED)
EVENTS = (
    states.OPENED, states.OVERDUE, states.PUT_OFF, states.CONFIRMED, states.COVERED, states.REFUSED, states.LEFT,
)  # fmt: skip
PARTS = (("coordinator", ""), ("fetcher", "default"), ("unpacker", "default"))
TIMES = Timings()


class Told:
    """A conversation, driven by hand.

    Attributes:
        now: the clock.
        steps: what was to be done, with when.
    """

    def __init__(self, *, supervised: bool = False, watched: bool = False, unpack: bool = True) -> None:
        self.now = 100.0
        self.talk = Conversation(
            self.now,
            store="default",
            unpack=unpack,
            reference="redis",
            url="nats://bus",
            supervised=supervised,
            watched=watched,
        )
        self.steps: list[tuple[float, Step]] = []

    @property
    def roll(self) -> Attendance:
        """The last one that was called."""
        return next(step.roll for _, step in reversed(self.steps) if isinstance(step, CallRoll))

    def done(self, kind: type[Step] | None = None) -> list[Step]:
        """What was to be done so far, of one kind or of all."""
        self._collect()
        return [step for _, step in self.steps if kind is None or isinstance(step, kind)]

    def until(self, seconds: float, answer: Callable[[Step], None] = lambda step: None) -> None:
        """Let time pass; `answer` is the bus, which is told each step at once."""
        end = self.now + seconds
        self._hand_over(answer)
        for _ in range(10_000):
            if self.talk.due > end:
                self.now = end
                return
            self.now = max(self.now, self.talk.due)
            self.talk.tick(self.now)
            assert self.talk.due > self.now, "what was due is due again at once"
            self._hand_over(answer)
        raise AssertionError("it never comes to rest")

    def _hand_over(self, answer: Callable[[Step], None]) -> None:
        while new := self.talk.steps():
            for step in new:
                self.steps.append((self.now, step))
                answer(step)

    def _collect(self) -> None:
        self.steps += [(self.now, step) for step in self.talk.steps()]

    def errors(self) -> list[Exception]:
        return [step.error for step in self.done(Fail) if isinstance(step, Fail)]

    def said(self) -> list[str]:
        return [step.line for step in self.done(Say) if isinstance(step, Say)]


def asked(told: Told, timeout: float | None = None) -> Request:
    """A request on an open connection."""
    told.talk.opened(told.now)
    return told.talk.ask(told.now, "id", timeout)


def stored(told: Told, timeout: float | None = None, sequence: int = 7) -> Request:
    request = asked(told, timeout)
    told.talk.confirmed(request, sequence, told.now)
    return request


def healthy(told: Told, *parts: tuple[str, str]) -> Callable[[Step], None]:
    """A bus that answers each roll call, by these parts or by all; nothing ends."""

    def answer(step: Step) -> None:
        if isinstance(step, CallRoll):
            for part in parts or PARTS:
                step.roll.present(*part)
            step.roll.echoed()

    return answer


def deserted(told: Told) -> Callable[[Step], None]:
    """A bus on which nobody listens."""

    def answer(step: Step) -> None:
        if isinstance(step, CallRoll):
            step.roll.nobody()
            step.roll.echoed()

    return answer


# -- a request -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_state_is_in_the_table_or_changes_nothing(state: str, event: str) -> None:
    told = Told()
    request = asked(told)
    told.done()
    request.state = state
    told.talk._turn(request, event, told.now)
    after, act = TABLE.get((state, event), (state, ""))
    assert request.state == after
    expected = {states.ASK: [Ask], states.WITHDRAW: [Withdraw]}.get(act, [])
    assert [type(step) for step in told.done()[-len(expected) :] if expected] == expected


def test_a_request_waits_for_the_connection_and_is_said_once_on_it() -> None:
    told = Told()
    request = told.talk.ask(told.now, "id")
    assert told.done(Ask) == []
    told.talk.opened(told.now)
    assert len(told.done(Ask)) == 1 and request.state == states.ASKED


@pytest.mark.parametrize(("covers", "answered"), [(6, False), (7, False), (8, True), (900, True)])
def test_only_an_ending_above_its_own_sequence_answers_it(covers: int, answered: bool) -> None:
    told = Told()
    request = stored(told, sequence=7)
    told.talk.ended(covers, "ending", told.now)
    assert [(step.requests, step.ending) for step in told.done(Answer) if isinstance(step, Answer)] == (
        [([request], "ending")] if answered else []
    )


def test_an_ending_that_came_before_the_acknowledgement_counts() -> None:
    told = Told()
    request = asked(told)
    told.talk.ended(8, "ending", told.now)
    assert told.done(Answer) == []
    told.talk.confirmed(request, 7, told.now)
    assert len(told.done(Answer)) == 1 and told.talk.settled


def test_one_ending_answers_all_whom_it_covers_and_no_other() -> None:
    told = Told()
    told.talk.opened(told.now)
    requests = [told.talk.ask(told.now, f"{each}") for each in range(5)]
    for sequence, request in enumerate(requests, 10):
        told.talk.confirmed(request, sequence, told.now)
    told.talk.ended(13, "first", told.now)
    told.talk.ended(12, "older", told.now)
    told.talk.ended(99, "second", told.now)
    answers = [step for step in told.done(Answer) if isinstance(step, Answer)]
    assert [(step.requests, step.ending) for step in answers] == [(requests[:3], "first"), (requests[3:], "second")]


def test_an_unconfirmed_request_is_said_again_under_its_id() -> None:
    told = Told()
    request = asked(told)
    told.until(TIMES.ack * 3 + 0.5, healthy(told))
    asks = [step for step in told.done(Ask) if isinstance(step, Ask)]
    assert len(asks) == 4 and {step.request for step in asks} == {request}


def test_a_stream_that_is_not_open_yet_is_tried_again_soon() -> None:
    told = Told()
    request = asked(told)

    def answer(step: Step) -> None:
        healthy(told)(step)
        if isinstance(step, Ask) and told.now < 102:
            told.talk.put_off(request, told.now)
        elif isinstance(step, Ask):
            told.talk.confirmed(request, 3, told.now)

    told.until(3, answer)
    assert request.state == states.STORED and told.errors() == []
    assert 15 <= len(told.done(Ask)) <= 25


def test_where_no_stream_ever_takes_requests_that_is_said() -> None:
    told = Told()
    asked(told, 100.0)

    def answer(step: Step) -> None:
        healthy(told)(step)
        if isinstance(step, Ask):
            told.talk.put_off(step.request, told.now)

    told.until(20, answer)
    assert [(type(each), str(each)) for each in told.errors()] == [
        (ServicesMissing, "no stream at nats://bus takes requests: pullonce has never run there")
    ]


def test_a_stream_without_room_is_waited_for_and_said_once() -> None:
    told = Told()
    asked(told)

    def answer(step: Step) -> None:
        healthy(told)(step)
        if isinstance(step, Ask):
            told.talk.put_off(step.request, told.now, "no space left")

    told.until(200, answer)
    assert told.errors() == [] and told.said() == ["the bus stores nothing at the moment (no space left); trying again"]


def test_what_the_bus_will_never_store_fails_and_is_not_withdrawn() -> None:
    told = Told()
    request = asked(told)
    told.talk.refused(request, "message too large", told.now)
    assert [type(each) for each in told.errors()] == [BusError] and told.done(Withdraw) == [] and told.talk.settled


# -- leaving -------------------------------------------------------------------------------------------------------------


def test_who_leaves_withdraws_and_hears_no_ending() -> None:
    told = Told()
    request = stored(told)
    told.talk.leave(request, told.now)
    told.talk.ended(99, "ending", told.now)
    assert [type(each) for each in told.done()[1:]] == [Withdraw] and told.talk.settled


def test_who_leaves_before_the_acknowledgement_withdraws_when_it_knows_where_the_request_lies() -> None:
    told = Told()
    request = asked(told)
    told.talk.leave(request, told.now)
    assert len(told.done(Ask)) == 2 and told.done(Withdraw) == [] and not told.talk.settled
    told.talk.confirmed(request, 7, told.now)
    told.talk.confirmed(request, 7, told.now)
    assert len(told.done(Withdraw)) == 1 and request.sequence == 7 and told.talk.settled


def test_who_leaves_while_the_bus_was_never_there_has_nothing_to_withdraw() -> None:
    told = Told()
    request = told.talk.ask(told.now, "id")
    told.talk.leave(request, told.now)
    assert told.done() == [] and told.talk.settled


def test_a_deadline_fails_and_withdraws() -> None:
    told = Told()
    stored(told, 5.0)
    told.until(4.9, healthy(told))
    assert told.errors() == []
    told.until(0.2, healthy(told))
    assert [type(each) for each in told.errors()] == [PullTimeout] and len(told.done(Withdraw)) == 1
    assert "was not there after 5 s" in str(told.errors()[0])


def test_each_deadline_is_its_own() -> None:
    told = Told()
    told.talk.opened(told.now)
    for name, timeout in (("late", 50.0), ("never", None), ("soon", 5.0), ("between", 20.0)):
        told.talk.confirmed(told.talk.ask(told.now, name, timeout), 7, told.now)
    told.until(100, healthy(told))
    failed = [(at, step.request.id) for at, step in told.steps if isinstance(step, Fail)]
    assert failed == [(105.0, "soon"), (120.0, "between"), (150.0, "late")]


# -- who is there ----------------------------------------------------------------------------------------------------------


def test_where_nobody_listens_that_is_said_within_two_seconds_with_names_whatever_the_deadline() -> None:
    for timeout in (None, 110.0):
        told = Told()
        stored(told, timeout)
        told.until(1.99, deserted(told))
        (error,) = told.errors()
        assert isinstance(error, ServicesMissing) and len(told.done(Withdraw)) == 1
        assert str(error) == (
            "no part of pullonce answers at nats://bus (the coordinator, the fetcher of store default and the unpacker of "
            "store default are missing); start it with `pullonce up`"
        )


def test_one_moment_without_anybody_is_no_proof() -> None:
    told = Told()
    stored(told)
    calls = 0

    def answer(step: Step) -> None:
        nonlocal calls
        calls += isinstance(step, CallRoll)
        (deserted if calls <= 2 else healthy)(told)(step)

    told.until(20, answer)
    assert told.errors() == [] and calls == 3


def test_parts_that_are_slow_are_not_taken_for_none() -> None:
    """Somebody listens, and says nothing in time."""
    told = Told()
    stored(told)
    told.until(9, lambda step: step.roll.echoed() if isinstance(step, CallRoll) else None)
    assert told.errors() == [] and len(told.said()) == 1


@pytest.mark.parametrize(("timeout", "given_up"), [(None, True), (110.0, False)])
def test_a_part_that_was_never_there_is_waited_for_by_who_has_a_deadline(timeout: float | None, given_up: bool) -> None:
    told = Told()
    stored(told, timeout)
    told.until(2.1, healthy(told, *PARTS[:2]))
    assert told.said() == ["waiting for the unpacker of store default to come up"]
    told.until(TIMES.patience + 2, healthy(told, *PARTS[:2]))
    assert [type(each) for each in told.errors()] == ([ServicesMissing] if given_up else [])
    assert len(told.said()) == 1
    told.until(110, healthy(told, *PARTS[:2]))
    assert "missing" in str(told.errors()[0])


def test_who_does_not_unpack_needs_no_unpacker() -> None:
    told = Told(unpack=False)
    stored(told)
    told.until(200, healthy(told, *PARTS[:2]))
    assert told.errors() == [] and told.said() == []


def test_parts_that_were_seen_may_be_restarted_together() -> None:
    told = Told()
    stored(told)
    told.until(2, healthy(told))
    told.until(TIMES.away - 40, deserted(told))
    assert told.errors() == []
    told.until(60, healthy(told))
    assert told.errors() == []
    told.until(TIMES.away + 40, deserted(told))
    assert [type(each) for each in told.errors()] == [ServicesMissing]


def test_under_a_supervisor_nobody_means_not_yet() -> None:
    told = Told(supervised=True)
    stored(told)
    told.until(60, deserted(told))
    assert told.errors() == [] and len(told.said()) == 1


def test_nobody_is_asked_again_and_again_without_a_pause() -> None:
    told = Told(supervised=True)
    stored(told)
    told.until(60, deserted(told))
    assert len(told.done(CallRoll)) <= 60 / TIMES.again + 2


# -- the bus -------------------------------------------------------------------------------------------------------------


def test_a_bus_that_stands_still_is_a_delay_and_nothing_more_is_sent_to_it() -> None:
    told = Told()
    request = asked(told)
    told.until(60)
    assert told.errors() == [] and len(told.done(Ask)) == 1 and len(told.done(CallRoll)) == 1
    assert told.said() == ["the bus does not answer; waiting for it"] and len(told.done(Reconnect)) == 1
    told.talk.confirmed(request, 7, told.now)
    told.roll.echoed()
    told.until(1, healthy(told))
    assert len(told.done(Look)) >= 1 and len(told.done(CallRoll)) == 2
    told.talk.ended(8, "ending", told.now)
    assert len(told.done(Answer)) == 1


def test_after_a_standstill_the_parts_may_take_their_time_to_come_back() -> None:
    told = Told()
    stored(told)
    told.until(15)
    told.roll.echoed()
    told.until(60, deserted(told))
    assert told.errors() == []


@pytest.mark.parametrize("sequence", [0, 7])
def test_a_bus_that_was_away_is_asked_or_looked_at_when_it_is_back(sequence: int) -> None:
    told = Told()
    request = asked(told)
    if sequence:
        told.talk.confirmed(request, sequence, told.now)
    told.talk.lost(told.now, "reset")
    told.until(60)
    assert told.said() == ["the bus is away (reset); trying again"]
    told.talk.opened(told.now)
    told.until(0.1)
    assert (len(told.done(Ask)), len(told.done(Look))) == ((1, 1) if sequence else (2, 0))
    if not sequence:
        told.talk.confirmed(request, 7, told.now)  # the copy that lies there already, and whose ending may have passed
        assert len(told.done(Look)) == 1
    told.until(60, deserted(told))
    assert told.errors() == []


@pytest.mark.parametrize(("timeout", "seconds"), [(None, TIMES.away), (1000.0, 1000.0)])
def test_a_bus_that_stays_away_is_given_up(timeout: float | None, seconds: float) -> None:
    told = Told()
    stored(told, timeout)
    told.talk.lost(told.now, "reset")
    told.until(seconds - 1)
    assert told.errors() == []
    told.until(2)
    (error,) = told.errors()
    assert isinstance(error, PullTimeout if timeout else BusUnavailable) and "away" in str(error)


@pytest.mark.parametrize("timeout", [None, 110.0])
@pytest.mark.parametrize(("supervised", "silent", "soon"), [(False, False, True), (True, False, False), (False, True, False)])
def test_a_bus_that_was_never_there(timeout: float | None, supervised: bool, silent: bool, soon: bool) -> None:
    """A wrong address is said at once; one where somebody stands still, or is being started anew, is waited for."""
    told = Told(supervised=supervised)
    told.talk.ask(told.now, "id", timeout)
    told.talk.unreachable(BusUnavailable("refused"), silent=silent)
    told.until(TIMES.first + 0.1)
    assert [str(each) for each in told.errors()] == (["refused"] if soon else [])
    told.until(TIMES.away + 1)
    assert len(told.errors()) == 1


def test_who_watches_catches_up_on_every_connection() -> None:
    told = Told(watched=True)
    stored(told)
    told.talk.lost(told.now, "reset")
    told.talk.opened(told.now)
    assert len(told.done(CatchUp)) == 2


def test_a_long_silence_is_looked_into() -> None:
    told = Told()
    stored(told)
    told.until(TIMES.look * 4 + 1, healthy(told))
    assert len(told.done(Look)) == 4 and len(told.done(CallRoll)) == 5
    told.talk.unreadable(told.now)
    told.until(TIMES.pause, healthy(told))
    assert len(told.done(Look)) == 5

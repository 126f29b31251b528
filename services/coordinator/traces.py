"""Which trace each flight in flight belongs to, and the spans of those that end.

Without spans it is that of a flight's first request which named one, handed on as it came. With them the flight has a span of
its own: below the request that opened it where that named a trace, else at the root of a new one. Its ids are derived from
the flight, so all coordinators hand on the same; whoever stores the ending tells the span. Requests of other traces that
joined have a span each in theirs, linked to the flight's: so twenty requests share the spans of one flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256

from pullonce.bus.ports import Recorded
from pullonce.errors import PlatformInvalid, ReferenceInvalid
from pullonce.pulling.identity import identify_request
from pullonce.telemetry.spans import Span, Spans, Value, of_reference
from schemas.events import PullCompleted, PullFailed, PullRequested
from services.coordinator.board import Board
from services.coordinator.flight import Ending

_MOST = 128
"""Requests that a flight remembers: a waiter may not cost memory without end."""

_NAME = "pull"


@dataclass(frozen=True, slots=True)
class _Asked:
    sequence: int
    time: float
    trace: str


@dataclass(slots=True)
class _Course:
    """A flight in flight: the request that names its trace, and some that came later."""

    first: _Asked
    trace: str
    """What is handed on."""
    joined: list[_Asked] = field(default_factory=list)
    """The first ones that named a trace too."""
    latest: deque[_Asked] = field(default_factory=lambda: deque(maxlen=_MOST))
    """The last ones: what an ending does not cover has opened the next flight, or joined that."""


class Traces:
    """The traces of the flights of a board.

    Args:
        spans: where spans go; None: nowhere.
    """

    def __init__(self, board: Board, spans: Spans | None = None) -> None:
        self._board = board
        self._spans = spans
        self._of: dict[str, _Course] = {}

    def note(self, recorded: Recorded) -> None:
        """Take in what the log says."""
        if not (recorded.trace or self._of or self._spans):
            return
        match recorded.event:
            case PullRequested() as request if recorded.trace or self._spans:
                try:
                    flight = identify_request(request).flight
                except (ReferenceInvalid, PlatformInvalid):
                    return  # refused at once; its ending follows from nothing
                self._asked(flight, _Asked(recorded.sequence, recorded.time, recorded.trace))
            case PullCompleted(flight=flight, covers=covers) | PullFailed(flight=flight, covers=covers):
                course = self._of.pop(flight, None)
                for asked in course.latest if course else ():
                    if asked.sequence >= covers:
                        self._asked(flight, asked)

    def of_flight(self, flight: str) -> str:
        """The trace of a flight; empty: none."""
        course = self._of.get(flight)
        return course.trace if course else ""

    def of_key(self, key: str) -> str:
        """The trace of whoever waits for a key first and has one."""
        known = self._board.waits.key(key) if self._of else None
        return next((self._of[flight].trace for flight in known.waiters if flight in self._of), "") if known else ""

    def of_ending(self, ending: Ending) -> tuple[Span, ...]:
        """The spans of a flight that is about to end; `tell` completes them."""
        course = self._of.get(ending.flight) if self._spans else None
        return tuple(_ended(course, ending)) if course else ()

    def tell(self, ended: tuple[Span, ...], now: float) -> None:
        """Send the spans of a flight whose ending is stored, at `now` seconds since the epoch."""
        if self._spans is not None:
            for span in ended:
                self._spans.add(replace(span, end=now))

    def _asked(self, flight: str, asked: _Asked) -> None:
        course = self._of.get(flight)
        if course is None:
            trace = asked.trace if self._spans is None else _derived(self._spans, flight, asked)
            self._of[flight] = _Course(asked, trace)
            return
        course.latest.append(asked)
        if asked.trace and len(course.joined) < _MOST:
            course.joined.append(asked)


def _derived(spans: Spans, flight: str, opener: _Asked) -> str:
    """The `traceparent` of a flight's own span: the same for every coordinator."""
    drawn = sha256(f"{flight}.{opener.sequence}.{opener.time}".encode()).hexdigest()
    if opener.trace:
        version_, trace_id, _, flags = opener.trace.split("-")[:4]
        return f"{version_}-{trace_id}-{drawn[:16]}-{flags}"
    trace_id = drawn[16:48]
    return f"00-{trace_id}-{drawn[:16]}-{int(spans.begins(trace_id, _NAME)):02x}"


def _ended(course: _Course, ending: Ending) -> Iterator[Span]:
    joined = [asked for asked in course.joined if asked.sequence < ending.covers]
    error, message = (ending.code, ending.message) if isinstance(ending, PullFailed) else ("", "")
    yield Span(
        name=_NAME, begin=course.first.time, end=0.0, own=course.trace, parent=course.first.trace,
        attributes=_of_ending(ending), links=tuple(asked.trace for asked in joined), error=error, message=message,
    )  # fmt: skip
    about: dict[str, Value] = {"pullonce.flight": ending.flight, "pullonce.opened": ending.opened}
    for asked in joined:
        yield Span(
            name=f"{_NAME} joined", begin=asked.time, end=0.0, parent=asked.trace, links=(course.trace,),
            attributes={**about, "pullonce.sequence": asked.sequence}, error=error, message=message,
        )  # fmt: skip


def _of_ending(ending: Ending) -> dict[str, Value]:
    found: dict[str, Value] = {
        "pullonce.store": ending.store,
        "pullonce.flight": ending.flight,
        "pullonce.opened": ending.opened,
        **of_reference(ending.reference),
    }
    if isinstance(ending, PullCompleted):
        shared = ending.sharing
        found |= {"oci.manifest.digest": ending.manifest, "pullonce.requests": shared.requests, "pullonce.size": ending.size}
        for source in ("fetched", "reused", "waited"):
            found[f"pullonce.{source}_bytes"] = getattr(shared, f"{source}_bytes")
    return found

"""Questions that the ledger answers, and its answers: a core NATS request on `ledger.query`, or the same over HTTP.

A question is one JSON object whose `ask` names it: `{"ask": "history", "reference": "redis"}`. Its answer says `answer`; where
there is none, `{"answer": "error", "code": …, "message": …}`. Times are RFC 3339 in UTC; durations are seconds.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.malformed import read

Limit = Annotated[int, Meta(ge=1, le=10_000)]
"""Rows at most."""

State = Literal["waiting", "ordered", "done", "present", "failed"]
"""Of a piece of work; `present` is what was there before anybody ordered it."""


class Question(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="ask"):
    """Something the ledger can be asked."""


class AskHistory(Question, frozen=True, kw_only=True, tag="history"):
    """Which pulls were there? The newest first."""

    reference: str = ""
    """Any spelling of an image reference; empty: all."""
    store: str = ""
    since: datetime | None = None
    """Opened then or later."""
    before: int = 0
    """Opened before this position: where the last answer ended. 0: from the newest."""
    failed: bool = False
    """Only those that failed."""
    search: Annotated[str, Meta(max_length=256)] = ""
    """Only those with this in their reference or in the name of somebody who asked, in upper or lower case."""
    limit: Limit = 50


class AskStats(Question, frozen=True, kw_only=True, tag="stats"):
    """How much was asked for, what did it cost, and how long did it take?"""

    by: Literal["all", "image", "registry", "store", "door", "day", "hour"] = "all"
    """By `door`, a flight counts for each door by which somebody asked, with the requests that came by it; what was rolled up
    counts for none."""
    reference: str = ""
    store: str = ""
    since: datetime | None = None
    limit: Limit = 50


class AskExplain(Question, frozen=True, kw_only=True, tag="explain"):
    """Where did the time of one pull go? Works while it is in flight."""

    pull: str
    """Position of a request, name of a flight, or a reference, which means its latest pull."""


class AskSql(Question, frozen=True, kw_only=True, tag="sql"):
    """Any other question, as one SQL query. It can read the ledger, and nothing else on that machine."""

    query: str
    limit: Limit = 1000


class AskExport(Question, frozen=True, kw_only=True, tag="export"):
    """Write the tables as Parquet files on the ledger's machine."""

    before: datetime | None = None
    """Only what happened earlier than the start of that day; None: everything."""
    roll_up: bool = False
    """Then keep of it only one row a day, store and image (the table `days`)."""


class AskRebuild(Question, frozen=True, kw_only=True, tag="rebuild"):
    """Make the ledger anew from the log."""


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="answer"):
    """What the ledger says."""


class Error(Answer, frozen=True, kw_only=True, tag="error"):
    """The question has no answer."""

    code: str
    message: str


class Pull(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One flight as the history shows it; see the table `flights`."""

    flight: str
    opened: int
    opened_at: datetime
    store: str
    reference: str
    platform: str = ""
    requests: int = 0
    cancelled: int = 0
    requesters: tuple[str, ...] = ()
    doors: dict[str, int] = {}
    """Door → requests that came by it; those of clients that say none are missing."""
    ended: int | None = None
    ended_at: datetime | None = None
    outcome: str = "in the air"
    code: str = ""
    message: str = ""
    seconds: float | None = None
    """From its opening to its end."""
    release: float | None = None
    """From the last key's settling to the end."""
    digest: str = ""
    layers: int = 0
    size: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    reused: int = 0
    reused_bytes: int = 0
    waited: int = 0
    waited_bytes: int = 0
    unpacked: int = 0


class Gap(Struct, frozen=True, kw_only=True):
    """A stretch of the log that was gone before the ledger read it: what happened then, nobody knows any more."""

    begin: datetime
    """When the last event before it was stored."""
    end: datetime
    """When the first event behind it was."""
    missing: int
    """Events in it, at most."""


class History(Answer, frozen=True, kw_only=True, tag="history"):
    """Pulls, the newest first."""

    pulls: tuple[Pull, ...] = ()
    gaps: tuple[Gap, ...] = ()
    """Of the time that was asked about, the newest first."""


class Figures(Struct, frozen=True, kw_only=True):
    """What a group of ended pulls came to. Percentiles are None where nothing was measured."""

    name: str
    """Of the group: an image, a registry, a store, a door, a day; empty for all together."""
    flights: int
    failed: int
    requests: int
    cancelled: int
    sharing: float
    """Requests a flight."""
    asked_bytes: int
    """What the requests would have fetched if each had fetched for itself."""
    fetched_bytes: int
    reused_bytes: int
    """Of blobs that were in the store already, once a flight."""
    waited_bytes: int
    """Of blobs that another flight had ordered, once a flight."""
    saved_bytes: int
    """Asked for and not fetched."""
    p50: float | None
    """Seconds from a flight's opening to its end."""
    p95: float | None
    p99: float | None
    release_p50: float | None
    """Seconds from the last key's settling to the end."""
    release_p95: float | None
    release_p99: float | None


class Stats(Answer, frozen=True, kw_only=True, tag="stats"):
    """Figures by group, the busiest first; days and hours from the newest back, what was rolled up at the start of its day."""

    by: str
    figures: tuple[Figures, ...] = ()
    gaps: tuple[Gap, ...] = ()
    """Of the time that was asked about, the newest first: what happened in them is in no figure."""


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stretch of a pull's critical path."""

    step: str
    """What was done or waited for: `order`, `queue`, `head`, `transfer`, `unpack`, `release`…"""
    work: str = ""
    """For which piece of work: `resolve`, `fetch`, `unpack`, `record`; empty for the flight itself."""
    name: str = ""
    """Digest of the blob or ChainID of the layer."""
    begin: float = 0.0
    """Seconds after the pull's own beginning."""
    seconds: float = 0.0
    others: bool = False
    """Work that another flight had ordered."""


class Piece(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of a pull's work, on the critical path or not."""

    work: Literal["resolve", "fetch", "unpack", "record"]
    name: str = ""
    state: State = "waiting"
    size: int = 0
    """Bytes of the blob as stored."""
    holder: str = ""
    """The coordinator that ordered it."""
    ordered: float | None = None
    """Seconds after the pull's beginning at which its order was announced; negative: before, by another flight."""
    begin: float | None = None
    """At which a worker began."""
    end: float | None = None
    steps: dict[str, float] = {}
    others: bool = False
    progress: int = 0
    """Bytes so far, where it is under way."""
    doing: str = ""
    """What the worker last said of it."""
    worker: str = ""
    """Who works on it now, as the workers say."""
    working: float | None = None
    """Seconds after the pull's beginning at which their present attempt began."""
    attempts: int = 0
    """Attempts that came to nothing, as far as they were heard or stored."""
    error: str = ""
    """The last of them."""


class Explanation(Answer, frozen=True, kw_only=True, tag="explanation"):
    """Where the time of one pull went. The parts follow one another and add up to `wall`."""

    pull: Pull
    request: int | None = None
    """Position of the request that was asked about; its beginning counts as the pull's."""
    wall: float
    """Seconds from the beginning to the end, or to now."""
    parts: tuple[Part, ...] = ()
    pieces: tuple[Piece, ...] = ()
    advice: tuple[str, ...] = ()
    """What would have made it faster, the greatest gain first."""


class Table(Answer, frozen=True, kw_only=True, tag="table"):
    """The rows of an SQL query."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...] = ()
    truncated: bool = False
    """There were more."""


class Done(Answer, frozen=True, kw_only=True, tag="done"):
    """Something was carried out."""

    message: str
    events: int = 0
    seconds: float = 0.0


_question: msgspec.json.Decoder[AskHistory | AskStats | AskExplain | AskSql | AskExport | AskRebuild] = msgspec.json.Decoder(
    AskHistory | AskStats | AskExplain | AskSql | AskExport | AskRebuild
)
_answer: msgspec.json.Decoder[Error | History | Stats | Explanation | Table | Done] = msgspec.json.Decoder(
    Error | History | Stats | Explanation | Table | Done
)
_encoder = msgspec.json.Encoder(decimal_format="number")


def encode(message: Question | Answer) -> bytes:
    """Write a question or an answer."""
    return _encoder.encode(message)


def decode_question(body: bytes) -> AskHistory | AskStats | AskExplain | AskSql | AskExport | AskRebuild:
    """Read a question; raises Malformed where it is none."""
    return read(_question, body, "question")


def decode_answer(body: bytes) -> Error | History | Stats | Explanation | Table | Done:
    """Read an answer; raises Malformed where it is none."""
    return read(_answer, body, "answer")

"""History, figures, explanations and exports over logs whose answers are known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import jsonschema
import pytest

from pullonce.pulling.identity import identify
from schemas import ledger as questions
from schemas.derive.core_channels import KINDS
from schemas.derive.json_schema import json_schema
from schemas.derive.samples import SAMPLES
from schemas.events import Event, PullCancelled, PullCompleted, PullFailed, PullRequested, Sharing
from schemas.ledger import Answer, AskExplain, AskExport, AskHistory, AskSql, AskStats, Question, decode_answer, encode
from schemas.oci import Digest
from services.ledger.answers.live import Live
from services.ledger.answers.questions import Questions
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.staging import stage

DAY = datetime(2026, 3, 1, tzinfo=UTC)
REDIS, APP = "docker.io/library/redis:latest", "ghcr.io/some/app:1"


class Teller:
    """Tells a log, one event after the other."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, str, str]] = []
        self.now = DAY.timestamp()

    def say(self, event: Event, *, after: float = 0.0) -> int:
        self.now += after
        self.rows.append(stage(len(self.rows) + 1, self.now, event))
        return len(self.rows)

    def ask(self, reference: str, requester: str = "", *, after: float = 0.0, store: str = "default") -> int:
        door = {"node-1": "cri", "node-2": "mirror"}.get(requester, "")
        return self.say(PullRequested(reference=reference, requester=requester, store=store, door=door), after=after)

    def complete(self, reference: str, opened: int, *, after: float, size: int = 100, fetched: int = 100) -> int:
        shared = Sharing(requests=1, fetched=1, fetched_bytes=fetched, reused=1, reused_bytes=size - fetched)
        digest = Digest("sha256:0")
        return self.say(
            PullCompleted(
                reference=reference, flight=identify(reference).flight, opened=opened, covers=len(self.rows) + 1, digest=digest,
                platform="linux/amd64", manifest=digest, image_id=digest, layers=2, size=size, sharing=shared,
            ),
            after=after,
        )  # fmt: skip

    def fail(self, reference: str, opened: int, *, after: float) -> int:
        flight = identify(reference).flight
        covers = len(self.rows) + 1
        return self.say(
            PullFailed(reference=reference, flight=flight, opened=opened, covers=covers, code="DENIED", message="no"),
            after=after,
        )


@pytest.fixture
def teller() -> Teller:
    """Day one: redis twice at once, then once more; an app that fails. Day two: redis, still in the air."""
    told = Teller()
    first = told.ask("redis", "node-1")
    told.ask(REDIS, "node-2", after=1.0)
    gone = told.ask("redis", "node-3")
    told.say(PullCancelled(reference=REDIS, flight=identify("redis").flight, request=gone), after=1.0)
    told.complete(REDIS, first, after=2.0)
    again = told.ask("redis", "node-1", after=10.0)
    told.complete(REDIS, again, after=1.0, fetched=0)
    app = told.ask(APP, "ci")
    told.fail(APP, app, after=0.5)
    told.ask("redis", "node-9", after=86_400.0)
    return told


@pytest.fixture
def ledger_file(tmp_path: Path, teller: Teller) -> Iterator[LedgerFile]:
    made = LedgerFile(tmp_path / "ledger.duckdb", memory="256MB")
    made.ledger.fold(teller.rows)
    yield made
    made.close()


async def unasked(store: str) -> None:
    """No worker is there to say how far it is."""


async def nothing() -> questions.Done:
    return questions.Done(message="rebuilt")


def ask(ledger_file: LedgerFile, question: Question) -> Answer:
    """As it comes over the bus; both are held to the schemas that others read."""
    asked = encode(question)
    said = asyncio.run(Questions(ledger_file, Live(), nothing, unasked).answer_encoded(asked))
    for tag, body in (("ask", asked), ("answer", said)):
        told = json.loads(body)
        kind = f"ledger.{tag}.{told[tag]}"
        jsonschema.validate(told, json_schema(kind, KINDS[kind]), jsonschema.Draft202012Validator)
    return decode_answer(said)


def history(ledger_file: LedgerFile, question: AskHistory) -> tuple[questions.Pull, ...]:
    answer = ask(ledger_file, question)
    assert isinstance(answer, questions.History), answer
    return answer.pulls


def test_history_shows_the_newest_first(ledger_file: LedgerFile) -> None:
    pulls = history(ledger_file, AskHistory())
    assert [(pull.opened, pull.outcome, pull.requests, pull.cancelled) for pull in pulls] == [
        (10, "in the air", 1, 0),
        (8, "failed", 1, 0),
        (6, "completed", 1, 0),
        (1, "completed", 3, 1),
    ]
    assert pulls[3].requesters == ("node-1", "node-2", "node-3")
    assert [pull.doors for pull in pulls] == [{}, {}, {"cri": 1}, {"cri": 1, "mirror": 1}]
    assert (pulls[3].seconds, pulls[3].release, pulls[3].opened_at) == (4.0, 2.0, DAY)
    assert (pulls[1].code, pulls[1].message, pulls[0].seconds) == ("DENIED", "no", None)


@pytest.mark.parametrize(
    ("question", "opened"),
    [
        (AskHistory(reference="redis"), [10, 6, 1]),
        (AskHistory(reference="ghcr.io/some/app:1"), [8]),
        (AskHistory(failed=True), [8]),
        (AskHistory(limit=1), [10]),
        (AskHistory(before=8, limit=1), [6]),
        (AskHistory(since=DAY + timedelta(seconds=5)), [10, 8, 6]),
        (AskHistory(since=DAY + timedelta(hours=5)), [10]),
        (AskHistory(store="other"), []),
    ],
)
def test_history_can_be_narrowed(ledger_file: LedgerFile, question: AskHistory, opened: list[int]) -> None:
    assert [pull.opened for pull in history(ledger_file, question)] == opened


def test_stats_tell_what_sharing_saved(ledger_file: LedgerFile) -> None:
    answer = ask(ledger_file, AskStats())
    assert isinstance(answer, questions.Stats)
    (figures,) = answer.figures
    assert (figures.flights, figures.failed, figures.requests, figures.cancelled) == (3, 1, 5, 1)
    assert (figures.asked_bytes, figures.fetched_bytes, figures.reused_bytes, figures.saved_bytes) == (400, 100, 100, 300)
    assert figures.sharing == pytest.approx(5 / 3)
    assert figures.p99 is not None and figures.p50 is not None and figures.p50 <= figures.p99 <= 4.0


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("image", [REDIS, APP]), ("registry", ["docker.io", "ghcr.io"]), ("store", ["default"]), ("day", ["2026-03-01"]),
        ("all", [""]), ("door", ["", "cri", "mirror"]),
    ],
)  # fmt: skip
def test_stats_by_group(ledger_file: LedgerFile, by: str, names: list[str]) -> None:
    answer = ask(ledger_file, AskStats(by=by))  # type: ignore[arg-type]
    assert isinstance(answer, questions.Stats)
    assert [figures.name for figures in answer.figures] == names


@pytest.mark.parametrize(
    ("by", "name", "times"),
    [
        ("image", REDIS, (1.0, 4.0, 4.0)), ("registry", "docker.io", (1.0, 4.0, 4.0)), ("all", "", (1.0, 4.0, 4.0)),
        ("day", "2026-03-01", (1.0, 4.0, 4.0)), ("hour", "2026-03-01T00:00", (1.0, 4.0, 4.0)),
    ],
)  # fmt: skip
def test_only_the_busiest_groups_are_shown_and_their_times_are_their_own(
    ledger_file: LedgerFile, by: str, name: str, times: tuple[float, ...]
) -> None:
    answer = ask(ledger_file, AskStats(by=by, limit=1))  # type: ignore[arg-type]
    assert isinstance(answer, questions.Stats)
    (figures,) = answer.figures
    assert (figures.name, (figures.p50, figures.p95, figures.p99)) == (name, times)
    narrowed = ask(ledger_file, AskStats(by=by, reference=APP))  # type: ignore[arg-type]
    assert isinstance(narrowed, questions.Stats)
    assert [(each.flights, each.p50, each.release_p50) for each in narrowed.figures] == [(1, 0.5, 0.5)]


def test_a_flight_counts_for_each_door_by_which_somebody_asked(ledger_file: LedgerFile) -> None:
    answer = ask(ledger_file, AskStats(by="door"))
    assert isinstance(answer, questions.Stats)
    assert [(each.name, each.flights, each.requests, each.fetched_bytes, each.p50) for each in answer.figures] == [
        ("", 2, 2, 100, 0.5), ("cri", 2, 2, 100, 1.0), ("mirror", 1, 1, 100, 4.0)
    ]  # fmt: skip
    narrowed = ask(ledger_file, AskStats(by="door", reference=APP))
    assert isinstance(narrowed, questions.Stats) and [each.name for each in narrowed.figures] == [""]


def test_an_explanation_of_a_request_counts_from_that_request(ledger_file: LedgerFile) -> None:
    whole, late = ask(ledger_file, AskExplain(pull="1")), ask(ledger_file, AskExplain(pull="2"))
    assert isinstance(whole, questions.Explanation) and isinstance(late, questions.Explanation)
    assert (whole.request, whole.wall, late.request, late.wall) == (1, 4.0, 2, 3.0)
    assert sum(part.seconds for part in late.parts) == pytest.approx(3.0)


@pytest.mark.parametrize("wanted", ["redis", REDIS, identify("redis").flight, "10"])
def test_an_explanation_of_a_pull_in_the_air(ledger_file: LedgerFile, wanted: str) -> None:
    answer = ask(ledger_file, AskExplain(pull=wanted))
    assert isinstance(answer, questions.Explanation)
    assert (answer.pull.opened, answer.pull.outcome, answer.parts[-1].step) == (10, "in the air", "waiting")


def test_registries_are_summed_over_what_landed_and_what_flies(ledger_file: LedgerFile) -> None:
    answer = ask(ledger_file, AskSql(query="SELECT * FROM registries ORDER BY registry"))
    assert isinstance(answer, questions.Table)
    assert answer.columns == (
        "registry", "flights", "requests", "failed", "fetched_bytes", "reused_bytes", "waited_bytes", "last",
    )  # fmt: skip
    docker, ghcr = (list(row) for row in answer.rows)
    # Three flights of redis, the last still in the air; what was fetched for the first was there for the second.
    assert docker[:7] == ["docker.io", 3, 5, 0, 100, 100, 0] and str(docker[7]).startswith("2026-03-02")
    assert ghcr[:7] == ["ghcr.io", 1, 1, 1, 0, 0, 0] and str(ghcr[7]).startswith("2026-03-01")


@pytest.mark.parametrize(
    ("question", "code"),
    [
        (AskExplain(pull="99"), "pull.unknown"),
        (AskExplain(pull="nobody/asked:for"), "pull.unknown"),
        (AskExplain(pull="0123456789abcdef"), "pull.unknown"),
        (AskExplain(pull="NOT a reference"), "reference.invalid"),
        (AskHistory(reference="NOT a reference"), "reference.invalid"),
        (AskSql(query="DROP TABLE events"), "sql.refused"),
        (AskExport(roll_up=True), "question.invalid"),
    ],
)
def test_what_has_no_answer_says_why(ledger_file: LedgerFile, question: Question, code: str) -> None:
    answer = ask(ledger_file, question)
    assert isinstance(answer, questions.Error) and answer.code == code


def test_an_answer_that_is_too_long_for_the_bus_says_so(ledger_file: LedgerFile, teller: Teller) -> None:
    for number in range(2000):
        teller.ask(f"ghcr.io/{'y' * 200}/{number}:1", "r" * 128)
    ledger_file.ledger.fold(teller.rows)
    answer = ask(ledger_file, AskHistory(limit=10_000))
    assert isinstance(answer, questions.Error) and answer.code == "answer.too-large"
    assert len(history(ledger_file, AskHistory(limit=100))) == 100


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"ask":"nothing"}', b'{"ask":"history","limit":0}', b"\xff", b"[" * 10**5]
)
def test_what_is_no_question_is_answered_so(ledger_file: LedgerFile, body: bytes) -> None:
    answer = decode_answer(asyncio.run(Questions(ledger_file, Live(), nothing, unasked).answer_encoded(body)))
    assert isinstance(answer, questions.Error) and answer.code == "question.invalid"


def test_the_sample_story_is_explained(tmp_path: Path) -> None:
    """The golden examples, told as one pull: every kind of event is understood."""
    ledger_file = LedgerFile(tmp_path / "ledger.duckdb", memory="256MB")
    events = [message for message in SAMPLES.values() if isinstance(message, Event)]
    ledger_file.ledger.fold([stage(40 + number, DAY.timestamp() + number, event) for number, event in enumerate(events)])
    answer = ask(ledger_file, AskExplain(pull="41"))
    assert isinstance(answer, questions.Explanation)
    assert [(piece.work, piece.state) for piece in answer.pieces] == [
        ("resolve", "done"), ("fetch", "present"), ("fetch", "done"), ("unpack", "present"), ("unpack", "done"),
        ("record", "done"),
    ]  # fmt: skip
    assert sum(part.seconds for part in answer.parts) == pytest.approx(answer.wall)
    ledger_file.close()


# -- exports and roll-ups ----------------------------------------------------------------------------------------------


def test_an_export_holds_every_row(ledger_file: LedgerFile) -> None:
    answer = ask(ledger_file, AskExport())
    assert isinstance(answer, questions.Done), answer
    (directory,) = ledger_file.ledger.exports.iterdir()
    read = duckdb.connect()
    counts = {each.stem: read.execute(f"SELECT count(*) FROM '{each}'").fetchall()[0][0] for each in directory.iterdir()}
    read.close()
    assert (counts["events"], counts["flights"], counts["requests"]) == (10, 3, 5)
    assert answer.events == sum(counts.values())


def test_a_roll_up_keeps_the_figures_and_drops_the_detail(ledger_file: LedgerFile) -> None:
    before = ask(ledger_file, AskStats(by="image"))
    assert isinstance(ask(ledger_file, AskExport(before=DAY + timedelta(days=1, hours=7), roll_up=True)), questions.Done)
    after = ask(ledger_file, AskStats(by="image"))
    assert isinstance(before, questions.Stats) and isinstance(after, questions.Stats)
    for one, other in zip(before.figures, after.figures, strict=True):
        assert (one.name, one.flights, one.requests, one.failed, one.saved_bytes) == (
            other.name, other.flights, other.requests, other.failed, other.saved_bytes,
        )  # fmt: skip
    assert [pull.opened for pull in history(ledger_file, AskHistory())] == [10]
    left = ask(ledger_file, AskSql(query="SELECT count(*) FROM events"))
    assert isinstance(left, questions.Table) and left.rows == ((1,),)
    assert isinstance(ask(ledger_file, AskExport(before=DAY + timedelta(days=1), roll_up=True)), questions.Done)
    assert ask(ledger_file, AskStats(by="image")) == after

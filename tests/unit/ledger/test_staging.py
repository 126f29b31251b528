"""What is staged for the fold, and what is heard of work under way."""

import json

import msgspec
import pytest

from pullonce.pulling.identity import identify
from schemas.derive.samples import SAMPLES
from schemas.events import Event, PullRequested
from schemas.oci import ChainID, Digest
from schemas.progress import BlobProgress, LayerProgress
from schemas.subjects import digest_token, flight_of
from services.ledger.answers import live
from services.ledger.answers.live import Live, LiveProgress
from services.ledger.fold.staging import line, stage

EVENTS = [message for message in SAMPLES.values() if isinstance(message, Event)]


@pytest.mark.parametrize("event", [*EVENTS, None], ids=lambda event: type(event).__name__)
def test_a_line_says_the_same_as_a_row(event: Event | None) -> None:
    given = (7, 1_700_000_000.123456, event, "pull.eaten\x00", 'a "reason"\n')
    row, told = stage(*given), json.loads(line(*given))
    assert (told["sequence"], told["micros"], told["kind"], told["body"]) == (*row[:3], json.loads(row[3]))
    assert row[:2] == (7, 1_700_000_000_123_456)
    assert b"\n" not in line(*given)[:-1]


def test_a_request_is_staged_in_normal_form_with_its_flight() -> None:
    body = json.loads(stage(1, 0.0, PullRequested(reference="redis", platform="linux/x86_64"))[3])
    assert (body["reference"], body["platform"]) == ("docker.io/library/redis:latest", "linux/amd64")
    assert body["flight"] == identify("redis", platform="linux/amd64").flight


@pytest.mark.parametrize("about", [{"reference": "NOT one"}, {"reference": "redis", "platform": "a/b/c/d"}])
def test_what_the_coordinator_refuses_has_a_flight_of_its_own(about: dict[str, str]) -> None:
    body = json.loads(stage(1, 0.0, PullRequested(**about))[3])  # type: ignore[arg-type]
    request = PullRequested(**about)  # type: ignore[arg-type]
    assert body["reference"] == request.reference
    assert body["flight"] == flight_of(request.reference, {"platform": request.platform})


A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def said(**about: object) -> bytes:
    return json.dumps({"type": "blob.progress", "digest": A, **about}).encode()


def test_the_last_word_counts_and_failed_attempts_add_up() -> None:
    heard, subject = Live(), f"progress.default.{digest_token(A)}"
    for body in (
        said(done=5, size=10),
        said(done=5, size=10, state="retrying", error="it broke off"),
        b"no progress",
        said(done=2, size=10, state="retrying", error="again"),
        said(done=7, size=10),
    ):
        heard.hear(subject, body)
    assert heard.of("fetch", "default", A) == LiveProgress(done=7, size=10, state="fetching", attempts=2, error="again")
    assert heard.of("fetch", "other", A) == LiveProgress()


def told(attempt: int, since: float, state: str = "fetching", error: str = "") -> bytes:
    return said(attempt=attempt, since=since, state=state, error=error, worker=f"w{since:.0f}")


FIRST_FAILED = told(1, 10.0, "retrying", "it broke off")


@pytest.mark.parametrize(
    ("words", "attempts", "error", "worker"),
    [
        ((told(1, 10.0),), 0, "", "w10"),
        ((FIRST_FAILED,), 1, "it broke off", "w10"),
        ((FIRST_FAILED, told(1, 10.0)), 1, "it broke off", "w10"),
        ((FIRST_FAILED, told(2, 11.0)), 1, "it broke off", "w11"),
        ((told(2, 11.0), FIRST_FAILED), 1, "it broke off", "w11"),
        ((told(3, 12.0),), 2, "", "w12"),
        ((FIRST_FAILED, told(1, 20.0)), 0, "", "w20"),
        ((told(1, 20.0), FIRST_FAILED), 0, "", "w20"),
    ],
    ids=[
        "first",
        "failed",
        "a late word",
        "second",
        "by two, the second first",
        "after a restart",
        "another order",
        "an old one",
    ],
)
def test_an_attempt_is_known_by_its_number_whoever_heard_the_ones_before(
    words: tuple[bytes, ...], attempts: int, error: str, worker: str
) -> None:
    heard = Live()
    for body in words:
        heard.hear("", body)
    known = heard.of("fetch", "default", A)
    assert (known.attempts, known.error, known.worker) == (attempts, error, worker)


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MOST", 3)
    heard = Live()
    for number in range(10):
        heard.hear("", said(digest=f"sha256:{number:064}"))
    assert [name for _, _, name in heard.all()] == [f"sha256:{number:064}" for number in (7, 8, 9)]


def test_layers_are_known_by_their_chain_id() -> None:
    heard = Live()

    for message in (
        LayerProgress(chain_id=ChainID(C), blob=Digest(B), done=1, state="waiting"),
        BlobProgress(digest=Digest(B), done=9),
    ):
        heard.hear("", msgspec.json.encode(message))
    assert (heard.of("unpack", "default", C).state, heard.of("fetch", "default", B).done) == ("waiting", 9)


def test_one_name_for_a_blob_and_its_layer_is_two_pieces_of_work() -> None:
    """A lowest layer that is stored uncompressed: its digest is its diffID, and that is its ChainID."""
    heard = Live()
    for message in (
        LayerProgress(chain_id=ChainID(A), blob=Digest(A), done=3, state="retrying", error="no room"),
        BlobProgress(digest=Digest(A), done=9, size=10),
    ):
        heard.hear("", msgspec.json.encode(message))
    assert heard.of("unpack", "default", A) == LiveProgress(done=3, state="retrying", attempts=1, error="no room")
    assert heard.of("fetch", "default", A) == LiveProgress(done=9, size=10, state="fetching")

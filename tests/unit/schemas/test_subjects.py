"""Subjects, message ids and claim keys: legal for NATS, read back without loss, and the same for ever."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import routing, subjects
from schemas.derive.samples import SAMPLES
from schemas.events import EVENTS, Event, PullCancelled, PullCompleted, PullFailed, PullRequested, Token
from schemas.orders import ORDERS, Order
from schemas.progress import Progress

FACTS = {kind: sample for kind, sample in SAMPLES.items() if isinstance(sample, Event)}
WORK = {kind: sample for kind, sample in SAMPLES.items() if isinstance(sample, Order)}

TOKEN = re.compile(r"[^\s.*>\x00-\x1f\x7f]+", re.ASCII)
KV_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")
CONSUMER = re.compile(r"[^\s.*>/\\]+")

FLIGHT = "f7b3e13a1463fa75"
IMAGE = "docker%2Eio/library/redis:latest"
TOP = "sha256-57bf3ccacec4ea0c7c01d30ca85216b7a20ba47ced06d92b61a64896746193fc"
CHAIN = subjects.digest_token(SAMPLES["layer.unpacked"].chain_id)  # type: ignore[union-attr]

names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
digests = st.builds("sha256:{}".format, hexes)
references = st.text(min_size=1, max_size=80)


def covers(pattern: str, subject: str) -> bool:
    """Whether a NATS subject pattern covers a subject: `*` is one token, a last `>` is one or more."""
    wanted, given_ = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given_) >= len(wanted) and covers(".".join(wanted[:-1]), ".".join(given_[: len(wanted) - 1]))
    return len(wanted) == len(given_) and all(w in ("*", g) for w, g in zip(wanted, given_, strict=True))


def assert_publishable(subject: str, tokens: int) -> None:
    parts = subject.split(".")
    assert len(parts) == tokens
    assert all(TOKEN.fullmatch(part) for part in parts), subject


@pytest.mark.parametrize("kind", ["fetch.blob", "unpack.layer"])
def test_the_order_of_a_claim_is_found_by_its_key(kind: str) -> None:
    order = WORK[kind]
    assert subjects.order_of_claim(routing.claim_key(order), order.revision) == routing.order_subject(order)


@pytest.mark.parametrize(
    ("pattern", "subject", "answer"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("*.b", "a.c", False),
    ],
)
def test_the_matcher_of_these_tests(pattern: str, subject: str, answer: bool) -> None:
    assert covers(pattern, subject) is answer


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "token"),
    [
        ("docker.io/library/redis:latest", IMAGE),
        ("ghcr.io/o/i@sha256:ab", "ghcr%2Eio/o/i@sha256:ab"),
        ("localhost:5000/a_b-c:1", "localhost:5000/a_b-c:1"),
        ("100%", "100%25"),
        ("a b*>", "a%20b%2A%3E"),
        ("ünï", "%C3%BCn%C3%AF"),
        ("\r\n\x00", "%0D%0A%00"),
    ],
)
def test_image_token(reference: str, token: str) -> None:
    assert subjects.image_token(reference) == token
    assert subjects.image_of(token) == reference


@given(references)
def test_any_reference_is_one_token_and_is_read_back(reference: str) -> None:
    token = subjects.image_token(reference)
    assert TOKEN.fullmatch(token)
    assert token.isascii()
    assert subjects.image_of(token) == reference


@given(st.text(min_size=512, max_size=512), names)
def test_the_longest_request_still_has_a_subject(reference: str, store: str) -> None:
    subject = subjects.pull_subject("unrecorded", store, reference, FLIGHT)
    assert_publishable(subject, 5)
    assert len(subject) < 4096 - 1024, "room for the rest of the command line: a reply subject and sizes"
    assert reference.startswith(subjects.image_of(subject.split(".")[3]))


@pytest.mark.parametrize("token", ["%", "%ZZ", "%FF", "a%C3b"])
def test_a_token_that_was_never_written_is_refused(token: str) -> None:
    with pytest.raises(ValueError):
        subjects.image_of(token)


@given(digests)
def test_a_digest_is_one_token_and_is_read_back(digest: str) -> None:
    token = subjects.digest_token(digest)
    assert KV_KEY.fullmatch(token)
    assert subjects.digest_of(token) == digest


# -- flights -----------------------------------------------------------------------------------------------------------

REFERENCE = "docker.io/library/redis:latest"
REDIS = {
    "store": "default",
    "platform": "linux/amd64",
    "credential": "",
    "policy": "always",
    "unpack": True,
}


def test_the_name_of_a_flight_never_changes() -> None:
    """Clients of other versions and in other languages compute it too."""
    assert subjects.flight_of(REFERENCE, REDIS) == FLIGHT


@pytest.mark.parametrize(
    "other",
    [
        {"store": "rack-7"},
        {"platform": "linux/arm64/v8"},
        {"credential": "team"},
        {"policy": "if-not-present"},
        {"unpack": False},
    ],
)
def test_requests_that_must_not_share_an_answer_have_another_flight(other: dict[str, object]) -> None:
    assert subjects.flight_of(REFERENCE, REDIS | other) != FLIGHT


def test_another_image_has_another_flight() -> None:
    assert subjects.flight_of("docker.io/library/redis:7", REDIS) != FLIGHT


def test_what_is_left_out_has_its_default_and_a_request_has_the_same() -> None:
    assert subjects.flight_of(REFERENCE, {"platform": "linux/amd64"}) == FLIGHT
    request = PullRequested(reference="redis")
    assert {name: getattr(request, name) for name in subjects.FLIGHT_FIELDS} == subjects.FLIGHT_FIELDS


def test_a_field_that_comes_later_changes_only_the_names_of_flights_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(subjects.FLIGHT_FIELDS, "later", 0)
    assert subjects.flight_of(REFERENCE, REDIS) == subjects.flight_of(REFERENCE, REDIS | {"later": 0}) == FLIGHT
    assert subjects.flight_of(REFERENCE, REDIS | {"later": 1}) != FLIGHT


@given(names, references, names, names, st.sampled_from(["always", "if-not-present"]), st.booleans())
def test_a_flight_is_sixteen_hex_digits(
    store: str, reference: str, platform: str, credential: str, policy: str, unpack: bool
) -> None:
    fields = {"store": store, "platform": platform, "credential": credential, "policy": policy, "unpack": unpack}
    flight = subjects.flight_of(reference, fields)
    assert re.fullmatch(r"[0-9a-f]{16}", flight)


# -- subjects of facts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subject", "message_id"),
    [
        ("pull.requested", "pull.requested", None),
        ("pull.resolved", f"pull.resolved.default.{IMAGE}.{FLIGHT}", f"pull.resolved.default.{FLIGHT}.41.7"),
        ("pull.unresolved", f"pull.unresolved.default.{IMAGE}.{FLIGHT}", f"pull.unresolved.default.{FLIGHT}.41.7"),
        ("pull.recorded", f"pull.recorded.default.{IMAGE}.{FLIGHT}", f"pull.recorded.default.{FLIGHT}.41.19"),
        ("pull.unrecorded", f"pull.unrecorded.default.{IMAGE}.{FLIGHT}", f"pull.unrecorded.default.{FLIGHT}.41.19"),
        ("pull.completed", f"pull.completed.default.{IMAGE}.{FLIGHT}", f"pull.ended.default.{FLIGHT}.41"),
        ("pull.failed", f"pull.failed.default.{IMAGE}.{FLIGHT}", f"pull.ended.default.{FLIGHT}.41"),
        ("pull.cancelled", f"pull.cancelled.default.{IMAGE}.{FLIGHT}", "pull.cancelled.43.9f3c1d57a0b24e68"),
        ("blob.claimed", f"blob.claimed.default.{TOP}", f"blob.claimed.default.{TOP}.12"),
        ("blob.fetched", f"blob.fetched.default.{TOP}", f"blob.fetched.default.{TOP}.12"),
        ("blob.failed", f"blob.failed.default.{TOP}", f"blob.failed.default.{TOP}.12"),
        ("blob.lost", f"blob.lost.default.{TOP}", None),
        ("layer.claimed", f"layer.claimed.default.{CHAIN}", f"layer.claimed.default.{CHAIN}.13"),
        ("layer.unpacked", f"layer.unpacked.default.{CHAIN}", f"layer.unpacked.default.{CHAIN}.13"),
        ("layer.failed", f"layer.failed.default.{CHAIN}", f"layer.failed.default.{CHAIN}.13"),
        ("layer.lost", f"layer.lost.default.{CHAIN}", None),
        ("store.opened", "store.opened.default", "store.opened.default.5d1c0e2f9a7b4c38"),
    ],
)
def test_subject_and_message_id_of_a_fact(kind: str, subject: str, message_id: str | None) -> None:
    assert routing.event_subject(FACTS[kind]) == subject
    assert routing.event_id(FACTS[kind]) == message_id


def test_the_tables_leave_no_message_out() -> None:
    assert FACTS.keys() == EVENTS.keys()
    assert WORK.keys() == ORDERS.keys()


@pytest.mark.parametrize("kind", FACTS)
def test_the_stream_of_events_stores_every_fact_once(kind: str) -> None:
    subject = routing.event_subject(FACTS[kind])
    assert [covers(pattern, subject) for pattern in subjects.EVENT_SUBJECTS].count(True) == 1
    assert not any(covers(pattern, subject) for pattern in (*subjects.ORDER_SUBJECTS, *subjects.PARKED_SUBJECTS))
    assert subject.startswith(kind)


@given(names, references, hexes)
def test_a_pull_has_five_tokens_and_is_stored(store: str, reference: str, flight: str) -> None:
    request = PullRequested(reference=reference, store=store)
    subject = subjects.request_subject(request, flight[:16], reference)
    assert_publishable(subject, 5)
    assert any(covers(pattern, subject) for pattern in subjects.EVENT_SUBJECTS)
    assert subjects.image_of(subject.split(".")[3]) == reference
    left = PullCancelled(reference=reference, store=store, flight=flight[:16], request=1)
    assert routing.event_subject(left) == subject.replace("requested", "cancelled", 1)


def test_a_flight_ends_once_well_or_badly() -> None:
    completed, failed = FACTS["pull.completed"], FACTS["pull.failed"]
    assert isinstance(completed, PullCompleted)
    assert isinstance(failed, PullFailed)
    assert routing.event_id(completed) == routing.event_id(failed)


# -- orders and claims -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subject", "key"),
    [
        ("resolve.reference", f"resolve.reference.default.{FLIGHT}.7", f"resolve.default.{FLIGHT}.41"),
        ("fetch.blob", f"fetch.blob.default.{TOP}.12", f"blob.default.{TOP}"),
        ("unpack.layer", f"unpack.layer.default.{CHAIN}.13", f"layer.default.{CHAIN}"),
        ("record.image", f"record.image.default.{FLIGHT}.19", f"record.default.{FLIGHT}.41"),
    ],
)
def test_subject_and_claim_of_an_order(kind: str, subject: str, key: str) -> None:
    order = WORK[kind]
    assert routing.order_subject(order) == subject
    assert routing.claim_key(order) == key
    assert [covers(pattern, subject) for pattern in subjects.ORDER_SUBJECTS].count(True) == 1
    assert not any(covers(pattern, subject) for pattern in subjects.EVENT_SUBJECTS)
    assert covers(subjects.order_filter(kind, "default"), subject)
    assert not covers(subjects.order_filter(kind, "other"), subject)
    assert_publishable(subject, 5)


@given(names, digests, hexes, st.integers(0, 2**63))
def test_a_claim_is_a_legal_key(store: str, digest: str, flight: str, opened: int) -> None:
    keys = (
        subjects.blob_key(store, digest),
        subjects.layer_key(store, digest),
        subjects.resolve_key(store, flight[:16], opened),
        subjects.record_key(store, flight[:16], opened),
    )
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert KV_KEY.fullmatch(key)
        assert not key.startswith(".")
        assert not key.endswith(".")


@given(names, st.sampled_from(sorted(ORDERS)))
def test_a_durable_is_a_legal_consumer_name(store: str, kind: str) -> None:
    assert CONSUMER.fullmatch(subjects.order_durable(kind, store))


def test_two_stores_never_share_a_durable() -> None:
    """A store's name may hold dashes, the kinds hold none but their one."""
    durables = {subjects.order_durable(kind, store) for kind in ORDERS for store in ("a", "a-b", "blob-a", "layer")}
    assert len(durables) == len(ORDERS) * 4


# -- signals and parking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind, sample in SAMPLES.items() if isinstance(sample, Progress)])
def test_progress_is_heard_by_those_who_follow_the_store_and_stored_by_nobody(kind: str) -> None:
    sample = SAMPLES[kind]
    assert isinstance(sample, Progress)
    subject = routing.progress_subject(sample)
    assert covers(subjects.progress_filter("default"), subject)
    assert not covers(subjects.progress_filter("other"), subject)
    assert not any(covers(pattern, subject) for pattern in (*subjects.EVENT_SUBJECTS, *subjects.ORDER_SUBJECTS))
    assert_publishable(subject, 3)


def test_what_is_parked_is_stored_apart() -> None:
    subject = subjects.parked_subject(subjects.EVENTS_STREAM, 42)
    assert subject == "parked.EVENTS.42"
    assert any(covers(pattern, subject) for pattern in subjects.PARKED_SUBJECTS)
    assert not any(covers(pattern, subject) for pattern in subjects.EVENT_SUBJECTS)


def test_a_question_is_stored_by_nobody() -> None:
    for subject in (subjects.PING_SUBJECT, subjects.HERE_SUBJECT, subjects.STATUS_SUBJECT):
        patterns = (*subjects.EVENT_SUBJECTS, *subjects.ORDER_SUBJECTS, *subjects.PARKED_SUBJECTS)
        assert not any(covers(pattern, subject) for pattern in patterns)


@given(names)
def test_every_name_that_a_token_may_be_is_legal_in_a_key(name: str) -> None:
    (meta,) = Token.__metadata__  # type: ignore[attr-defined]
    assert re.search(meta.pattern, name)
    assert KV_KEY.fullmatch(name)

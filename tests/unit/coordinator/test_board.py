"""The fold, event by event: who moves on when a key settles, fails or is lost, and whom an ending answers."""

import msgspec
import pytest

from schemas import subjects
from schemas.events import (
    CONTENT_MISSING,
    BlobClaimed,
    BlobFailed,
    BlobFetched,
    BlobLost,
    Concerns,
    Event,
    LayerClaimed,
    LayerFailed,
    LayerLost,
    LayerUnpacked,
    PullCancelled,
    PullCompleted,
    PullFailed,
    PullRecorded,
    PullRequested,
    PullResolved,
    PullUnrecorded,
    PullUnresolved,
    ResolvedLayer,
    Source,
    StoreOpened,
)
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.orders import FetchBlob, RecordImage, ResolveReference, UnpackLayer
from schemas.subjects import seal_of
from services.coordinator.board import Board
from services.coordinator.flight import Flight
from services.coordinator.intents import End, Intent, Want, Withdraw, withdrawn
from services.coordinator.slow import SLOW, burden, said_slow

MANIFEST = Descriptor(media_type="m", digest=Digest("sha256:" + "a" * 64), size=3)
CONFIG = Descriptor(media_type="c", digest=Digest("sha256:" + "c" * 64), size=2)


def blob(n: int) -> Descriptor:
    return Descriptor(media_type="layer", digest=Digest(f"sha256:{n:064x}"), size=100 + n)


def chain(n: int) -> ChainID:
    return ChainID(f"sha256:{n + 0xC000:064x}")


SECRET = "only the requester knows"


class Log:
    """A board and a log that grows: `say` appends an event and folds it."""

    def __init__(self) -> None:
        self.board = Board()
        self.position = 0

    def say(self, event: Event) -> list[Intent]:
        self.position += 1
        return self.board.apply(event, self.position)

    def request(self, reference: str = "redis", **given: object) -> Flight:
        given.setdefault("seal", seal_of(SECRET))
        self.say(PullRequested(reference=reference, **given))  # type: ignore[arg-type]
        return next(f for f in reversed(self.board.flights.values()))

    def resolve(self, flight: Flight, *numbers: int, **given: object) -> list[Intent]:
        repository, credential = (str(given.pop(*each)) for each in (("repository", "library/redis"), ("credential", "")))
        source = Source(registry="docker.io", repository=repository, credential=credential)
        recorded = bool(given.pop("recorded", False))
        layers = tuple(
            ResolvedLayer(blob=blob(n), diff_id=DiffID(f"sha256:{n:064x}"), chain_id=chain(n), **given)  # type: ignore[arg-type]
            for n in numbers
        )
        return self.say(
            PullResolved(
                reference=flight.reference,
                flight=flight.name,
                opened=flight.opened,
                platform="linux/amd64",
                source=source,
                digest=MANIFEST.digest,
                manifest=MANIFEST,
                config=CONFIG,
                layers=layers,
                recorded=recorded,
            )
        )

    def fetched(self, n: int, revision: int = 1, **given: object) -> list[Intent]:
        return self.say(BlobFetched(digest=blob(n).digest, size=100 + n, revision=revision, **given))  # type: ignore[arg-type]

    def unpacked(self, n: int, revision: int = 1) -> list[Intent]:
        return self.say(LayerUnpacked(chain_id=chain(n), diff_id=DiffID("sha256:0"), revision=revision))

    def recorded(self, flight: Flight, revision: int = 1) -> list[Intent]:
        return self.say(PullRecorded(reference=flight.reference, flight=flight.name, opened=flight.opened, revision=revision))

    def unrecorded(self, flight: Flight, code: str, revision: int) -> list[Intent]:
        return self.say(
            PullUnrecorded(
                reference=flight.reference, flight=flight.name, opened=flight.opened, code=code, message="y", revision=revision
            )
        )

    def failed(
        self, n: int, concerns: Concerns, repository: str = "library/redis", credential: str = "", revision: int = 1
    ) -> list[Intent]:
        source = Source(registry="docker.io", repository=repository, credential=credential)
        self.say(BlobClaimed(digest=blob(n).digest, revision=revision, holder="c1"))
        return self.say(
            BlobFailed(digest=blob(n).digest, revision=revision, source=source, concerns=concerns, code="x", message="y")
        )


def wanted(intents: list[Intent]) -> list[type]:
    return [type(intent.order) for intent in intents if isinstance(intent, Want)]


def ending(intents: list[Intent]) -> PullCompleted | PullFailed:
    (end,) = [intent for intent in intents if isinstance(intent, End)]
    return end.ending


def test_one_pull_from_request_to_ending() -> None:
    log = Log()
    intents = log.say(PullRequested(reference="redis"))
    assert wanted(intents) == [ResolveReference]
    (flight,) = log.board.flights.values()
    assert flight.reference == "docker.io/library/redis:latest"
    assert wanted(log.resolve(flight, 1, 2)) == [FetchBlob, UnpackLayer, FetchBlob, UnpackLayer]
    for intents in (log.fetched(1), log.unpacked(1), log.fetched(2)):
        assert not wanted(intents)
    assert wanted(log.unpacked(2)) == [RecordImage]
    end = ending(log.recorded(flight))
    assert isinstance(end, PullCompleted)
    assert (end.covers, end.opened, end.image_id, end.chain_id) == (log.position + 1, 1, CONFIG.digest, chain(2))
    assert (end.sharing.fetched, end.sharing.fetched_bytes, end.sharing.unpacked, end.sharing.requests) == (2, 203, 2, 1)
    log.say(end)
    assert not log.board.flights


def test_requests_join_and_one_ending_answers_them_all() -> None:
    log = Log()
    flight = log.request("redis")
    for spelling in ("docker.io/library/redis", "redis:latest", "index.docker.io/library/redis:latest"):
        assert not log.say(PullRequested(reference=spelling))
    assert flight.requests == 4
    log.resolve(flight, 1, fetched=True, unpacked=True)
    end = ending(log.recorded(flight))
    assert isinstance(end, PullCompleted)
    assert end.sharing.requests == 4
    assert end.covers > 4


@pytest.mark.parametrize(
    "other", [{"store": "b"}, {"platform": "linux/arm64"}, {"credential": "b"}, {"policy": "if-not-present"}, {"unpack": False}]
)
def test_what_must_not_share_an_answer_flies_apart(other: dict[str, object]) -> None:
    log = Log()
    assert log.request("redis") is not log.request("redis", **other)


def test_a_key_that_settles_moves_every_flight_on_in_one_step() -> None:
    log = Log()
    first, second = log.request("redis"), log.request("redis", credential="other")
    log.resolve(first, 1)
    assert not wanted(log.resolve(second, 1)), "the keys are wanted already"
    log.fetched(1)
    assert wanted(log.unpacked(1)) == [RecordImage, RecordImage]
    end = ending(log.recorded(second))
    assert isinstance(end, PullCompleted)
    assert (end.sharing.waited, end.sharing.waited_bytes, end.sharing.unpack_waited, end.sharing.fetched) == (1, 101, 1, 0)


def test_a_request_after_the_end_and_before_the_ending_opens_the_next_flight() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight)
    end = ending(log.recorded(flight))
    assert not log.say(PullRequested(reference="redis"))
    late = log.position
    assert late >= end.covers
    intents = log.say(end)
    assert wanted(intents) == [ResolveReference]
    (following,) = log.board.flights.values()
    assert (following.opened, following.requests) == (log.position, 1)
    assert not log.say(end), "the same ending once more changes nothing"


def test_what_the_disk_holds_is_not_wanted() -> None:
    log = Log()
    flight = log.request("redis")
    assert wanted(log.resolve(flight, 1, 2, fetched=True, unpacked=True)) == [RecordImage]


def test_the_disk_decides_over_an_older_fact() -> None:
    log = Log()
    log.fetched(1)
    log.unpacked(1)
    assert wanted(log.resolve(log.request("redis"), 1)) == [FetchBlob, UnpackLayer]


def test_a_fact_newer_than_the_flight_stands_although_the_disk_was_asked_before_it() -> None:
    log = Log()
    flight = log.request("redis")
    log.fetched(1)
    assert wanted(log.resolve(flight, 1)) == [UnpackLayer]


REDIS, OTHER = ("library/redis", ""), ("library/other", "")
"""Sources, as repository and credential."""
ROBOT = ("library/redis", "robot")


@pytest.mark.parametrize(
    ("concerns", "source", "failing"),
    [
        ("key", REDIS, [REDIS, REDIS, ROBOT, OTHER]),
        ("source", REDIS, [REDIS, REDIS, ROBOT]),
        ("source", ROBOT, [REDIS, REDIS, ROBOT]),
        ("source", OTHER, [OTHER]),
        ("credential", REDIS, [REDIS, REDIS]),
        ("credential", ROBOT, [ROBOT]),
        ("credential", ("library/other", "robot"), []),
        ("nobody", REDIS, []),
    ],
)
def test_a_failure_reaches_whom_it_concerns(
    concerns: Concerns, source: tuple[str, str], failing: list[tuple[str, str]]
) -> None:
    log = Log()
    flights = {
        log.request("redis"): REDIS,
        log.request("redis", platform="linux/arm64"): REDIS,
        log.request("redis", credential="robot"): ROBOT,
        log.request("docker.io/library/other"): OTHER,
    }
    for flight, (repository, credential) in flights.items():
        log.resolve(flight, 1, repository=repository, credential=credential)
    intents = log.failed(1, concerns, *source)
    ended = {intent.ending.flight for intent in intents if isinstance(intent, End)}
    assert [place for flight, place in flights.items() if flight.name in ended] == failing
    assert wanted(intents) == ([FetchBlob] if len(failing) < len(flights) else [])


@pytest.mark.parametrize(
    ("concerns", "sources", "leads"),
    [
        ("source", [REDIS, OTHER], OTHER),
        ("source", [REDIS, ROBOT, OTHER], OTHER),
        ("credential", [REDIS, ROBOT, OTHER], ROBOT),
        ("credential", [ROBOT, REDIS, OTHER], REDIS),
        ("nobody", [REDIS, OTHER], REDIS),
    ],
)
def test_whoever_remains_after_a_failure_fetches_from_its_own_source(
    concerns: Concerns, sources: list[tuple[str, str]], leads: tuple[str, str]
) -> None:
    log = Log()
    for repository, credential in sources:
        flight = log.request(f"docker.io/{repository}", credential=credential)
        log.resolve(flight, 1, repository=repository, credential=credential)
    (want,) = [intent for intent in log.failed(1, concerns, *sources[0]) if isinstance(intent, Want)]
    assert isinstance(want.order, FetchBlob)
    assert (want.order.source.repository, want.order.source.credential) == leads
    assert (want.since, want.done) == (log.position, 1)


def test_a_layer_fails_for_those_who_unpack_the_same_blob() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight, 1)
    failure = LayerFailed(
        chain_id=chain(1), blob=blob(9).digest, revision=1, concerns="source", code="diffid.mismatch", message="no"
    )
    log.say(LayerClaimed(chain_id=chain(1), revision=1, holder="c1"))
    assert wanted(log.say(failure)) == [UnpackLayer]
    mine = msgspec.structs.replace(failure, blob=blob(1).digest, revision=2)
    assert not log.say(mine), "a worker was faster than whoever says that its order is out"
    end = ending(log.say(LayerClaimed(chain_id=chain(1), revision=2, holder="c1")))
    assert isinstance(end, PullFailed)
    assert end.code == "diffid.mismatch"


def test_a_late_failure_under_an_older_revision_changes_nothing_but_a_late_success_settles() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight, 1)
    log.say(BlobClaimed(digest=blob(1).digest, revision=9, holder="c1"))
    assert not log.failed(1, "key", revision=4)
    log.unpacked(1)
    assert wanted(log.fetched(1, revision=4)) == [RecordImage]
    assert not log.failed(1, "key", revision=9), "a success stands"


def test_a_lost_blob_is_wanted_again_by_a_flight_in_the_air_only() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight, 1, 2)
    log.fetched(1)
    log.fetched(5)
    assert wanted(log.say(BlobLost(digest=blob(1).digest))) == [FetchBlob]
    assert not log.say(BlobLost(digest=blob(5).digest))


def test_an_image_that_lost_a_blob_while_it_was_recorded_is_not_complete() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight, 1, fetched=True, unpacked=True)
    log.say(BlobLost(digest=blob(1).digest))
    assert not [i for i in log.recorded(flight, 1) if isinstance(i, End)]
    assert wanted(log.fetched(1, revision=3)) == [RecordImage], "what was listed before that may have been taken off the list"
    assert not log.recorded(flight, 1), "the first order again"
    assert isinstance(ending(log.recorded(flight, 4)), PullCompleted)


def test_an_image_that_is_listed_already_is_listed_again_after_a_loss() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight, 1, fetched=True, recorded=True)
    log.say(BlobLost(digest=blob(1).digest))
    log.unpacked(1)
    assert wanted(log.fetched(1)) == [RecordImage]
    assert isinstance(ending(log.recorded(flight)), PullCompleted)


def test_what_is_missing_when_an_image_is_listed_is_waited_for_again() -> None:
    log = Log()
    flight = log.request("redis")
    assert wanted(log.resolve(flight, 1, fetched=True, unpacked=True)) == [RecordImage]
    assert wanted(log.say(BlobLost(digest=blob(1).digest))) == [FetchBlob]
    assert not wanted(log.unrecorded(flight, CONTENT_MISSING, 2))
    assert wanted(log.fetched(1, revision=3)) == [RecordImage]
    assert not log.unrecorded(flight, CONTENT_MISSING, 2), "a worker that repeats itself"
    assert isinstance(ending(log.unrecorded(flight, "disk.full", 4)), PullFailed)


def test_a_disk_is_not_believed_to_hold_what_was_lost_since_the_flight_opened() -> None:
    log = Log()
    log.say(BlobLost(digest=blob(1).digest))
    flight = log.request("redis")
    log.say(LayerLost(chain_id=chain(2)))
    assert wanted(log.resolve(flight, 1, 2, fetched=True, unpacked=True)) == [UnpackLayer]


def test_a_new_incarnation_of_a_store_holds_nothing() -> None:
    log = Log()
    log.say(StoreOpened(incarnation="one"))
    log.fetched(1)
    log.say(StoreOpened(incarnation="one"))
    assert log.board.waits.of(subjects.blob_key("default", blob(1).digest)).settled
    log.say(StoreOpened(store="b", incarnation="two"))
    log.say(StoreOpened(incarnation="two"))
    assert not log.board.waits.of(subjects.blob_key("default", blob(1).digest)).settled


def test_what_cannot_be_resolved_fails_all_who_asked() -> None:
    log = Log()
    flight = log.request("redis")
    log.request("redis")
    unresolved = PullUnresolved(
        reference=flight.reference, flight=flight.name, opened=flight.opened, code="MANIFEST_UNKNOWN", message="no such tag"
    )
    end = ending(log.say(unresolved))
    assert isinstance(end, PullFailed)
    assert (end.code, end.requests, end.covers) == ("MANIFEST_UNKNOWN", 2, 4)
    assert not log.say(unresolved)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"reference": "Not A Reference"}, "reference.invalid"),
        ({"reference": "redis", "platform": "amd64"}, "platform.invalid"),
    ],
)
def test_what_cannot_be_asked_for_is_answered_at_once_and_every_time(given: dict[str, str], code: str) -> None:
    log = Log()
    end = ending(log.say(PullRequested(**given)))  # type: ignore[arg-type]
    assert isinstance(end, PullFailed)
    assert (end.code, end.covers) == (code, 2)
    log.say(PullRequested(**given))  # type: ignore[arg-type]
    again = ending(log.say(end))
    assert again.covers > 2
    log.say(again)
    assert not log.board.flights


def leave(log: Log, flight: Flight, request: int, secret: str = SECRET) -> list[Intent]:
    return log.say(PullCancelled(reference=flight.reference, flight=flight.name, request=request, secret=secret))


@pytest.mark.parametrize(("seal", "secret"), [(seal_of(SECRET), ""), (seal_of(SECRET), "a guess"), ("", ""), ("", SECRET)])
def test_nobody_withdraws_what_others_asked_for(seal: str, secret: str) -> None:
    log = Log()
    flight = log.request("redis", seal=seal)
    assert not leave(log, flight, 1, secret) and flight.requests == 1 and flight.ending is None
    for number in (0, 2, 10**9):
        assert not leave(log, flight, number)


def test_who_comes_too_late_for_a_flight_can_leave_the_next() -> None:
    log = Log()
    flight = log.request("redis")
    ending = flight.fail(1, "", code="x.y", message="no")
    log.request("redis")
    log.say(ending)
    following = log.board.flights[flight.name]
    assert following is not flight and following.requests == 1
    assert not leave(log, following, 1), "that one is answered"
    leave(log, following, 2)
    assert isinstance(following.ending, PullFailed) and following.ending.code == "pull.cancelled"


def test_when_the_last_requester_leaves_the_flight_ends_and_its_orders_are_withdrawn() -> None:
    log = Log()
    flight = log.request("redis")
    log.request("redis")
    log.resolve(flight, 1)
    log.say(BlobClaimed(digest=blob(1).digest, revision=9, holder="c1"))
    assert not leave(log, flight, 1)
    assert not leave(log, flight, 1), "the same requester leaves once"
    intents = leave(log, flight, 2)
    (stop,) = [intent for intent in intents if isinstance(intent, Withdraw)]
    assert isinstance(stop.order, FetchBlob)
    assert (stop.order.revision, stop.key) == (9, subjects.blob_key("default", blob(1).digest))
    assert log.board.waits.unwanted(stop)
    end = ending(intents)
    assert isinstance(end, PullFailed) and end.code == "pull.cancelled"
    fact = withdrawn(stop.order)
    log.say(end)
    assert not wanted(log.say(fact))
    assert not log.board.waits.unwanted(stop)
    again = log.request("redis")
    assert FetchBlob in wanted(log.resolve(again, 1))


def test_an_order_that_others_wait_for_is_not_withdrawn() -> None:
    log = Log()
    first, second = log.request("redis"), log.request("redis", credential="other")
    log.resolve(first, 1)
    log.resolve(second, 1)
    log.say(BlobClaimed(digest=blob(1).digest, revision=9, holder="c1"))
    assert not [intent for intent in leave(log, first, 1) if isinstance(intent, Withdraw)]


def test_an_order_that_is_accepted_after_everybody_left_is_withdrawn_then() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight, 1)
    assert not [intent for intent in leave(log, flight, 1) if isinstance(intent, Withdraw)]
    (stop,) = log.say(BlobClaimed(digest=blob(1).digest, revision=9, holder="c1"))
    assert isinstance(stop, Withdraw)
    assert list(log.board.intents())[-1] == stop, "and again by whoever starts then"


def test_who_asks_while_an_order_is_being_withdrawn_has_it_ordered_again() -> None:
    log = Log()
    flight = log.request("redis")
    log.resolve(flight, 1)
    log.say(BlobClaimed(digest=blob(1).digest, revision=9, holder="c1"))
    intents = leave(log, flight, 1)
    (stop,) = [intent for intent in intents if isinstance(intent, Withdraw)]
    log.say(ending(intents))
    again = log.request("redis")
    assert FetchBlob not in wanted(log.resolve(again, 1)), "it is in hand still"
    assert wanted(log.say(withdrawn(stop.order))) == [FetchBlob]


def test_a_requester_who_leaves_is_not_counted() -> None:
    log = Log()
    flight = log.request("redis")
    log.request("redis")
    leave(log, flight, 1)
    assert flight.requests == 1


def test_an_answer_for_an_earlier_flight_is_not_for_this_one() -> None:
    log = Log()
    flight = log.request("redis")
    stale = PullResolved(
        reference=flight.reference, flight=flight.name, opened=99, platform="linux/amd64",
        source=Source(registry="docker.io", repository="library/redis"),
        digest=MANIFEST.digest, manifest=MANIFEST, config=CONFIG,
    )  # fmt: skip
    assert not log.say(stale)


def test_a_sequence_is_folded_once() -> None:
    board = Board()
    assert board.apply(PullRequested(reference="redis"), 5)
    assert not board.apply(PullRequested(reference="redis"), 5)


def test_after_catching_up_everything_in_the_air_is_wanted_once() -> None:
    log = Log()
    flight = log.request("redis")
    log.request("golang")
    log.resolve(flight, 1)
    log.say(BlobClaimed(digest=blob(1).digest, revision=3, holder="c1"))
    wants = [intent for intent in log.board.intents() if isinstance(intent, Want)]
    assert sorted(type(want.order).__name__ for want in wants) == ["FetchBlob", "ResolveReference", "UnpackLayer"]
    log.board.waits.trusted = log.board.position
    want = log.board.waits.want(subjects.blob_key("default", blob(1).digest))
    assert want is not None and want.hearsay


# -- sources that do not deliver ---------------------------------------------------------------------------------------------


def contested(log: Log) -> tuple[Flight, Flight, str]:
    """Two flights of two repositories that share a blob, which is being had from the first."""
    first, second = log.request("hostile/app"), log.request("redis")
    log.resolve(first, 1, repository="hostile/app")
    log.say(BlobClaimed(digest=blob(1).digest, revision=5, holder="me"))
    assert not log.board.waits.contested, "nobody else waits for it"
    log.resolve(second, 1)
    (key,) = log.board.waits.contested
    assert key == subjects.blob_key("default", blob(1).digest)
    return first, second, key


def test_a_source_that_does_not_deliver_is_left_for_another_waiters() -> None:
    log = Log()
    _, second, key = contested(log)
    contest = log.board.waits.contest(key)
    assert contest is not None and contest.place == ("docker.io", "hostile/app") and contest.rounds == 0
    assert (contest.blob, contest.order.revision) == (blob(1).digest, 5)
    fact = said_slow(contest)
    assert isinstance(fact, BlobFailed) and (fact.concerns, fact.code, fact.revision) == ("nobody", SLOW, 5)
    (want,) = [intent for intent in log.say(fact) if isinstance(intent, Want)]
    assert isinstance(want.order, FetchBlob) and want.order.source.repository == "library/redis"
    assert second.ending is None and log.board.waits.contest(key) is None, "nothing is out"
    log.say(BlobClaimed(digest=blob(1).digest, revision=6, holder="me"))
    again = log.board.waits.contest(key)
    assert again is not None and (again.place, again.patience) == (("docker.io", "library/redis"), 1.0)
    log.say(said_slow(again))
    log.say(BlobClaimed(digest=blob(1).digest, revision=7, holder="me"))
    third = log.board.waits.contest(key)
    assert third is not None and (third.place, third.patience) == (("docker.io", "hostile/app"), 2.0), "both are slow"
    log.fetched(1, revision=7)
    assert not log.board.waits.contested and log.board.waits.contest(key) is None


def test_a_layer_is_not_held_by_a_blob_that_does_not_come() -> None:
    """Another image claims the same diffID over a blob of its own."""
    log = Log()
    first, second = log.request("hostile/app"), log.request("redis")

    def resolve(flight: Flight, of: int) -> list[Intent]:
        layer = ResolvedLayer(blob=blob(of), diff_id=DiffID(f"sha256:{1:064x}"), chain_id=chain(1))
        source = Source(registry="docker.io", repository=flight.reference)
        return log.say(
            PullResolved(
                reference=flight.reference, flight=flight.name, opened=flight.opened, platform="linux/amd64", source=source,
                digest=MANIFEST.digest, manifest=MANIFEST, config=CONFIG, layers=(layer,),
            )
        )  # fmt: skip

    resolve(first, 1)
    log.say(LayerClaimed(chain_id=chain(1), revision=5, holder="me"))
    resolve(second, 2)
    key = subjects.layer_key("default", chain(1))
    assert log.board.waits.contested == {key}
    contest = log.board.waits.contest(key)
    assert contest is not None and (contest.blob, contest.place) == (blob(1).digest, ("", blob(1).digest))
    (want,) = [intent for intent in log.say(said_slow(contest)) if isinstance(intent, Want)]
    assert isinstance(want.order, UnpackLayer) and want.order.blob == blob(2)
    log.say(LayerClaimed(chain_id=chain(1), revision=6, holder="me"))
    assert log.board.waits.contest(key) is not None
    log.fetched(2)
    assert log.board.waits.contest(key) is None, "all of it is there: whatever takes long now is no source"


def test_one_source_alone_is_nobodys_rival() -> None:
    log = Log()
    first, other = log.request("redis"), log.request("redis", credential="team")
    log.resolve(first, 1)
    log.say(BlobClaimed(digest=blob(1).digest, revision=5, holder="me"))
    log.resolve(other, 1, credential="team")
    assert not log.board.waits.contested
    assert log.board.waits.contest(subjects.blob_key("default", blob(1).digest)) is None


def test_of_several_sources_the_least_suspect_is_chosen() -> None:
    bad, worse, good = ("bad.example", "a"), ("bad.example", "b"), ("good.example", "a")
    assert sorted((worse, bad, good), key=lambda place: burden(place, {bad: 1})) == [good, worse, bad]
    assert burden(good, {}) == burden(bad, {}) == (0, 0)


def test_what_a_flight_found_on_a_disk_is_wanted_again_when_the_store_is_made_anew_whatever_others_saw() -> None:
    """Somebody resolved his image before the piece lay there, and left."""
    log = Log()
    log.say(StoreOpened(incarnation="one"))
    early, late = log.request("early"), log.request("late")
    log.resolve(late, 1, fetched=True, unpacked=True)
    log.resolve(early, 1)
    log.say(early.failure(log.position, code="pull.cancelled", message="left"))
    log.say(StoreOpened(incarnation="two"))
    assert subjects.layer_key("default", chain(1)) in late.missing

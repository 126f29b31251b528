"""The contract of `bus.Log`."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from pullonce.bus.ports import Recorded
from pullonce.errors import LogShortened, Permanent
from schemas.events import BlobLost, PullCancelled, PullCompleted, PullFailed, PullRequested
from schemas.routing import event_subject
from tests.support.buses import Place, Reader, digest, fetched, lost, soon


async def test_sequences_count_up_and_are_those_that_are_read(place: Place) -> None:
    async with place.connect() as bus:
        assert await bus.log.last_sequence() == 0
        events = [fetched(1), lost(2), PullRequested(reference="redis")]
        assert [await bus.log.append(event) for event in events] == [1, 2, 3]
        assert await bus.log.last_sequence() == 3
        async with Reader(bus) as reader:
            await reader.until(lambda r: len(r.read) == 3)
        assert [each.event for each in reader.read] == events
        assert [each.sequence for each in reader.read] == [1, 2, 3]
        assert [each.subject for each in reader.read] == [event_subject(event) for event in events]
        assert reader.read[-1].pending == 0
        assert reader.read[0].time <= reader.read[-1].time


async def test_an_event_with_an_id_is_stored_once_whoever_says_it(place: Place) -> None:
    async with place.connect() as one, place.connect() as other:
        first = await one.log.append(fetched(1))
        assert await other.log.append(fetched(1)) == first
        assert await one.log.append(fetched(1, revision=2)) == first + 1
        assert await one.log.last_sequence() == first + 1


async def test_an_event_without_an_id_is_a_new_one_each_time(place: Place) -> None:
    async with place.connect() as bus:
        assert await bus.log.append(lost(1)) != await bus.log.append(lost(1))
        request = PullRequested(reference="redis")
        assert await bus.log.append(request) != await bus.log.append(request)


async def test_a_flight_ends_once_well_or_badly(place: Place) -> None:
    common = {"reference": "docker.io/library/redis:latest", "flight": "0123456789abcdef", "opened": 5}
    failed = PullFailed(**common, covers=9, code="x.y", message="no")
    done = PullCompleted(**common, covers=8, platform="linux/amd64", digest=digest(1), manifest=digest(1), image_id=digest(2))
    async with place.connect() as bus:
        assert await bus.log.append(failed) == await bus.log.append(done)
        found = await bus.log.last(event_subject(failed))
        assert found is not None and found.event == failed
        assert await bus.log.last(event_subject(done)) is None


async def test_an_event_without_an_id_can_be_said_again_under_one_of_the_callers(place: Place) -> None:
    request = PullRequested(reference="redis")
    async with place.connect() as bus, place.connect() as other:
        assert [await bus.log.append(request, message_id="mine.1") for _ in range(2)] == [1, 1]
        assert await other.log.append(request, message_id="mine.1") == 1
        assert await bus.log.append(request, message_id="mine.2") == 2
        assert [await bus.log.append(request) for _ in range(2)] == [3, 4]


async def test_append_all_keeps_the_order(place: Place) -> None:
    async with place.connect() as bus:
        assert await bus.log.append_all([]) == []
        assert await bus.log.append_all([fetched(number) for number in range(2500)]) == list(range(1, 2501))
        assert await bus.log.append_all([fetched(7), fetched(9000), fetched(8)]) == [8, 2501, 9]
        async with Reader(bus, start=2000) as reader:
            await reader.until(lambda r: len(r.read) == 502)
        assert reader.sequences == list(range(2000, 2502))
        assert reader.read[0].event == fetched(1999)


async def test_last_is_the_last_of_its_subject(place: Place) -> None:
    cancelled = [PullCancelled(reference="a.b/c:d", flight="0123456789abcdef", request=n) for n in (1, 2)]
    async with place.connect() as bus:
        assert await bus.log.last(event_subject(cancelled[0])) is None
        await bus.log.append_all([*cancelled, lost(1)])
        found = await bus.log.last(event_subject(cancelled[0]))
        assert found is not None
        assert (found.sequence, found.event, found.subject) == (2, cancelled[1], event_subject(cancelled[1]))


async def test_a_follower_of_an_empty_log_is_told_once_that_it_has_caught_up(place: Place) -> None:
    async with place.connect() as bus, Reader(bus) as reader:
        await reader.until(lambda r: r.idle == 1)
        await bus.log.append(lost(1))
        await reader.until(lambda r: len(r.read) == 1)
        assert reader.idle == 1


async def test_a_follower_with_something_to_read_is_not_told(place: Place) -> None:
    async with place.connect() as bus:
        await bus.log.append_all([lost(1), lost(2)])
        async with Reader(bus) as reader:
            await reader.until(lambda r: len(r.read) == 2)
            assert [each.pending for each in reader.read] == [1, 0]
            assert reader.idle == 0
        async with Reader(bus, start=3) as behind:
            await behind.until(lambda r: r.idle == 1)
            await bus.log.append(lost(3))
            await behind.until(lambda r: r.sequences == [3])


async def test_followers_see_one_order_while_many_write(place: Place) -> None:
    async with place.connect() as one, place.connect() as other, Reader(one) as first, Reader(other) as second:
        writes = [bus.log.append(lost(n)) for n in range(200) for bus in (one, other)]
        assert sorted(await asyncio.gather(*writes)) == list(range(1, 401))
        for reader in (first, second):
            await reader.until(lambda r: len(r.read) == 400)
        assert first.sequences == list(range(1, 401))
        assert [each.event for each in first.read] == [each.event for each in second.read]


async def test_an_error_of_apply_ends_the_follower(place: Place) -> None:
    def refuse(recorded: Recorded) -> None:
        raise ZeroDivisionError(recorded.sequence)

    async with place.connect() as bus:
        await bus.log.append(lost(1))
        with pytest.raises(ZeroDivisionError):
            await soon(bus.log.follow(refuse))


async def test_a_log_that_is_shorter_than_what_was_read_is_an_error(place: Place) -> None:
    async with place.connect() as bus:
        await bus.log.append(lost(1))
        with pytest.raises(LogShortened):
            await soon(bus.log.follow(lambda _: None, start=3))


async def test_a_log_that_was_cut_begins_later_and_keeps_its_numbers(place: Place) -> None:
    async with place.connect() as bus:
        empty = await bus.log.extent()
        assert (empty.first, empty.last, empty.bytes) == (1, 0, 0)
        for n in range(1, 11):
            await bus.log.append(lost(n))
        whole = await bus.log.extent()
        assert (whole.first, whole.last, whole.made) == (1, 10, empty.made) and whole.bytes > 0
        for _ in range(2):
            await bus.log.cut(7)
        assert ((left := await bus.log.extent()).first, left.last) == (7, 10)
        assert left.bytes < whole.bytes
        async with Reader(bus, start=3) as reader:
            await reader.until(lambda r: r.sequences == [7, 8, 9, 10])
        await bus.log.cut(11)
        assert ((none := await bus.log.extent()).first, none.last, none.bytes) == (11, 10, 0)
        async with Reader(bus, start=5) as behind:
            assert await bus.log.append(lost(11)) == 11
            await behind.until(lambda r: r.sequences == [11])


async def test_what_is_no_event_comes_with_a_reason_and_is_parked_once(place: Place) -> None:
    async with place.connect() as bus:
        assert await bus.log.last_parked() == 0
        await bus.log.append(lost(1))
        await bus.signals.publish("pull.requested", b"nonsense")
        await bus.log.append(lost(2))
        async with Reader(bus) as reader:
            await reader.until(lambda r: len(r.read) == 3)
        bad = next(each for each in reader.read if each.malformed)
        assert bad.event is None and bad.body == b"nonsense" and bad.subject == "pull.requested"
        for _ in range(2):
            await bus.log.park(bad)
        assert await bus.log.last_parked() == bad.sequence


async def test_a_bare_request_from_any_client_is_an_event(place: Place) -> None:
    async with place.connect() as bus, Reader(bus) as reader:
        ack = await bus.signals.request("pull.requested", b'{"reference":"redis:latest"}', timeout=5)
        assert b'"seq":1' in ack.replace(b" ", b"")
        await reader.until(lambda r: len(r.read) == 1)
        assert reader.read[0].event == PullRequested(reference="redis:latest")


async def test_an_event_too_large_is_refused_alone_and_among_others(place: Place) -> None:
    large = BlobLost(digest=digest(1), reason="x" * 600_000)
    async with place.connect() as bus:
        for events in ([large], [lost(2), large, lost(3)]):
            with pytest.raises(Permanent, match="at most"):
                await bus.log.append_all(events)


async def test_a_replay_hands_over_a_stretch_of_the_log_and_ends(place: Place) -> None:
    taken: list[Recorded] = []
    async with place.connect() as bus:
        await soon(bus.log.replay(taken.extend, start=1, end=10))
        assert taken == []
        await bus.log.append_all([fetched(number) for number in range(2500)])
        await bus.signals.publish("blob.fetched.default.x", b"no event\r\nMSG x 1 5\r\n")
        await soon(bus.log.replay(taken.extend, start=2, end=2400))
        assert [each.sequence for each in taken] == list(range(2, 2401))
        assert taken[0].event == fetched(1) and taken[0].pending >= 2400
        async with Reader(bus) as reader:
            await reader.until(lambda read: len(read.read) == 2501)
            taken.clear()
            await soon(bus.log.replay(taken.extend, start=1, end=10_000))
            # What was pending behind a message depends on when it was delivered.
            alike = [[msgspec.structs.replace(each, pending=0) for each in read] for read in (taken, reader.read)]
            assert alike[0] == alike[1]
        assert taken[-1].malformed and taken[-1].body == b"no event\r\nMSG x 1 5\r\n"


async def test_an_error_of_whoever_takes_a_replay_comes_out(place: Place) -> None:
    def take(_: Sequence[Recorded]) -> None:
        raise ZeroDivisionError

    async with place.connect() as bus:
        await bus.log.append(fetched(1))
        with pytest.raises(ZeroDivisionError):
            await soon(bus.log.replay(take, start=1, end=1))

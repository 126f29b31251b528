"""What only the NATS bus does: connect, refuse servers, set streams up, and stand what other clients and operators do."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from pullonce.bus.nats.bus import connect
from pullonce.bus.nats.link import Link, open_link
from pullonce.bus.nats.setup import CLAIMS_PREFIX, STREAMS, conflicts
from pullonce.bus.nats.socket import Connection
from pullonce.bus.ports import ClaimEntry, Delivery
from pullonce.config import BusSettings
from pullonce.errors import BusClosed, BusUnavailable, BusUnsuitable, WrongRevision
from schemas.orders import ResolveReference
from schemas.routing import order_subject
from tests.support.buses import LIMIT, NatsPlace, Reader, eventually, fetch, fetched, lost, running, soon
from tests.support.nats_server import NatsServer, free_port


def settings(url: str) -> BusSettings:
    return BusSettings(url=url, name="test")


@pytest.fixture
def restricted(tmp_path: Path) -> Iterator[NatsServer]:
    """A server where `guest` may not publish events and `none` has no JetStream at all."""
    users = """
    accounts {
      A { jetstream: enabled, users: [ { user: owner, password: x },
          { user: guest, password: x, permissions: { publish: { deny: ["pull.requested"] } } } ] }
      B { users: [ { user: none, password: x } ] }
    }
    """
    server = NatsServer(tmp_path / "restricted", more=users).start()
    yield server
    server.kill()


def url_of(server: NatsServer, user: str, password: str = "x") -> str:
    return f"nats://{user}:{password}@127.0.0.1:{server.port}"


async def test_a_client_learns_that_nobody_is_there() -> None:
    with pytest.raises(BusUnavailable, match="no NATS server answers"):
        async with connect(settings(f"nats://127.0.0.1:{free_port()}"), patience=0.3):
            pass


async def test_an_answer_that_is_not_permitted_any_more_ends_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The right to answer once (`allow_responses`) runs out: who rebuilds a file for ten minutes and then says so was ended
    by that."""
    users = """
    authorization { users: [
        { user: asker, password: x },
        { user: late, password: x, permissions: { publish: { deny: ["_INBOX.>"] }, subscribe: ">" } } ] }
    """
    server = NatsServer(tmp_path / "late", more=users).start()
    try:
        late = BusSettings(url=url_of(server, "late"), name="late", inbox="_INBOX_late")
        async with connect(late, patience=LIMIT) as bus, connect(settings(url_of(server, "asker")), patience=LIMIT) as asker:
            await bus.signals.answer("a.question", lambda _: b"too late")
            with pytest.raises(TimeoutError):
                await asker.signals.request("a.question", b"", timeout=0.5)
            assert await bus.log.append(lost(1)) == 1
        assert "an answer was not permitted" in caplog.text
    finally:
        server.kill()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_can_be_closed_while_its_server_dies(tmp_path: Path, loop: str) -> None:
    """What was still to be said is written to a socket that has just broken; a service that is told to stop ended by that."""

    async def use() -> None:
        server = NatsServer(tmp_path / loop).start()
        link = await open_link(settings(server.url), patience=LIMIT)
        server.kill()
        await eventually(lambda: away(link))
        for _ in range(10):
            link.post("nobody.listens", bytes(1000))
        await link.close()
        with pytest.raises(BusClosed):
            await link.ready()

    async def away(link: Link) -> bool:
        return not link.connected

    factory = pytest.importorskip(loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(use())


async def test_a_service_waits_for_its_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = NatsServer(tmp_path / "late")

    async def use() -> int:
        async with connect(settings(server.url)) as bus:
            return await bus.log.append(lost(1))

    async def tries() -> bool:
        return "still trying" in caplog.text

    waiting = asyncio.ensure_future(use())
    await eventually(tries)
    assert not waiting.done()
    await asyncio.to_thread(server.start)
    try:
        assert await soon(waiting) == 1
    finally:
        server.kill()


async def test_a_server_without_jetstream_is_refused(restricted: NatsServer) -> None:
    with pytest.raises(BusUnsuitable, match="JetStream"):
        async with connect(settings(url_of(restricted, "none")), patience=LIMIT):
            pass


async def test_wrong_credentials_are_refused_at_once(restricted: NatsServer) -> None:
    for patience in (None, LIMIT):
        with pytest.raises(BusUnsuitable, match="credentials"):
            await soon(connect(settings(url_of(restricted, "owner", "wrong")), patience=patience).__aenter__())


async def test_a_denied_write_ends_the_connection_instead_of_hanging(restricted: NatsServer) -> None:
    async with connect(settings(url_of(restricted, "owner")), patience=LIMIT):
        pass
    async with connect(settings(url_of(restricted, "guest")), patience=LIMIT) as bus:
        assert await bus.log.append(fetched(1)) == 1
        with pytest.raises(BusUnsuitable, match="permit"):
            await soon(bus.signals.request("pull.requested", b"{}", timeout=LIMIT))
        with pytest.raises(BusUnsuitable):
            await bus.log.append(fetched(2))


async def test_an_old_server_is_refused(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pullonce.bus.nats.setup.NEEDED_API_LEVEL", 1_000)
    with pytest.raises(BusUnsuitable, match=r"too old.*nats-server 2\.12"):
        async with connect(settings(nats_server.url), patience=LIMIT):
            pass


async def test_many_set_up_at_once(nats_server: NatsServer) -> None:
    async def use(number: int) -> None:
        async with connect(settings(nats_server.url), patience=LIMIT) as bus:
            await bus.log.append(fetched(number))

    await asyncio.gather(*(use(number) for number in range(20)))
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        assert await bus.log.last_sequence() == 20


async def test_an_operators_stream_is_left_alone_or_refused(nats_server: NatsServer) -> None:
    async with connect(settings(nats_server.url), patience=LIMIT):
        pass
    client = await nats.connect(nats_server.url)
    stream = client.jetstream()
    config = (await stream.stream_info("EVENTS")).config
    config.max_age, config.max_msgs, config.subjects = 3600.0, 1000, config.subjects[1:]
    await stream.update_stream(config)
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        await bus.log.append(lost(1))
    found = (await stream.stream_info("EVENTS")).config
    assert (found.max_age, found.max_msgs) == (3600.0, 1000)
    assert sorted(found.subjects) == sorted(STREAMS["EVENTS"]["subjects"])
    await stream.delete_stream("ORDERS")
    await stream.add_stream(name="ORDERS", subjects=["fetch.blob.>"])
    with pytest.raises(BusUnsuitable, match="retention is 'limits', not 'workqueue'"):
        async with connect(settings(nats_server.url), patience=LIMIT):
            pass
    await client.close()


@pytest.mark.parametrize(
    ("made", "then", "why"),
    [
        ({"max_msg_size": 1000}, {}, "max_msg_size is 1000"),
        ({"no_ack": True}, {}, "no_ack is True"),
        ({}, {"sealed": True}, "sealed is True"),
        ({"max_bytes": 1_000_000, "discard": "new"}, {}, "discard is 'new' with max_bytes"),
        ({"subject_transform": {"src": "pull.requested", "dest": "pull.x.y.z.a"}}, {}, "subject_transform is"),
    ],
)
async def test_a_stream_that_takes_no_event_is_named_at_the_start(
    nats_server: NatsServer, made: dict[str, object], then: dict[str, object], why: str
) -> None:
    """Whoever waited for what is to be stored there waited for ever."""
    client = await nats.connect(nats_server.url)
    config = {"name": "EVENTS", "allow_direct": True, **STREAMS["EVENTS"], **made}
    for verb, wanted in (("CREATE", config), *([("UPDATE", {**config, **then})] if then else [])):
        answer = await client.request(f"$JS.API.STREAM.{verb}.EVENTS", json.dumps(wanted).encode())
        assert "error" not in json.loads(answer.data), answer.data
    await client.close()
    with pytest.raises(BusUnsuitable, match=f"stream EVENTS exists but cannot serve pullonce: .*{why}"):
        async with connect(settings(nats_server.url), patience=LIMIT):
            pass


async def test_a_server_that_takes_too_little_is_named_at_the_start(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "small", more="max_payload: 64KB").start()
    try:
        with pytest.raises(BusUnsuitable, match=r"at most 65536 bytes.* set `max_payload: 1MB`"):
            async with connect(settings(server.url), patience=LIMIT):
                pass
        with pytest.raises(BusUnsuitable, match=r"at most 65536 bytes.* set `max_payload: 1MB`"):
            Connection(server.url)
    finally:
        server.kill()


async def test_a_bucket_that_took_roll_ups_takes_none_any_more(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    old = {"name": "KV_claims", "allow_direct": True, **STREAMS["KV_claims"], "allow_rollup_hdrs": True}
    answer = await client.request("$JS.API.STREAM.CREATE.KV_claims", json.dumps(old).encode())
    assert "error" not in json.loads(answer.data), answer.data
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        await bus.claims.put("blob.other.x", b"theirs", expected=0)
        rolled = await client.request(CLAIMS_PREFIX + "blob.default.x", b"{}", headers={"Nats-Rollup": "all"})
        assert "rollup" in json.loads(rolled.data)["error"]["description"]
        assert await bus.claims.get("blob.other.x")
    await client.close()


@pytest.mark.parametrize("name", STREAMS)
def test_what_we_would_make_has_no_conflicts(name: str) -> None:
    assert conflicts(STREAMS[name], STREAMS[name]) == []
    assert conflicts({**STREAMS[name], "retention": "interest"}, STREAMS[name])


async def test_whoever_uses_a_closed_bus_is_told(nats_server: NatsServer) -> None:
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        reader = Reader(bus)
        receiving = asyncio.ensure_future(bus.orders.receive("fetch.blob", "default", lambda _: asyncio.sleep(0), limit=1))
        await reader.until(lambda r: r.idle == 1)
    for task in (reader.task, receiving):
        with pytest.raises(BusClosed):
            await soon(task)
    for use in (bus.log.append(lost(1)), bus.orders.send(fetch(1)), bus.claims.get("x"), bus.signals.publish("x", b"")):
        with pytest.raises(BusClosed):
            await soon(use)


async def test_a_claim_deleted_by_hand_is_absent(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        first = await bus.claims.put("blob.x", b"one", expected=0)
        await client.request(CLAIMS_PREFIX + "blob.x", b"", headers={"KV-Operation": "DEL"})
        assert await bus.claims.get("blob.x") is None
        with pytest.raises(WrongRevision):
            await bus.claims.put("blob.x", b"two", expected=first)
        second = await bus.claims.put("blob.x", b"two", expected=0, ttl=60)
        assert await bus.claims.get("blob.x") == ClaimEntry(b"two", second)
    await client.close()


async def test_orders_and_reasons_of_what_is_malformed_are_parked(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    place = NatsPlace(nats_server.url)
    async with place.connect() as bus:
        parked: asyncio.Queue[str] = asyncio.Queue()
        await bus.signals.subscribe("parked.>", lambda subject, _: parked.put_nowait(subject))
        async with running(bus.orders.receive("fetch.blob", "default", lambda _: asyncio.sleep(0), limit=1)):
            await client.request("fetch.blob.default.x.1", b'{"no": "order"}')
            assert await soon(parked.get()) == "parked.ORDERS.1"
        stream = client.jetstream()

        async def stored() -> bool:  # a listener hears what is published, which may be before it is stored
            return (await stream.stream_info("PARKED")).state.messages == 1

        await eventually(stored)
        message = await stream.get_last_msg("PARKED", "parked.ORDERS.1")
        assert message.data == b'{"no": "order"}'
        assert message.headers["Pullonce-Subject"] == "fetch.blob.default.x.1"
        assert "fetch.blob" in message.headers["Pullonce-Reason"]
    await client.close()


async def test_a_consumer_deleted_by_hand_is_made_again(nats_server: NatsServer) -> None:
    taken: asyncio.Queue[object] = asyncio.Queue()

    async def take(delivery: Delivery) -> None:
        await delivery.ack()
        taken.put_nowait(delivery.order)

    client = await nats.connect(nats_server.url)
    async with (
        connect(settings(nats_server.url), patience=LIMIT) as bus,
        running(bus.orders.receive("fetch.blob", "default", take, limit=2)),
    ):
        for number in range(3):
            await bus.orders.send(fetch(number))
            while await soon(taken.get()) != fetch(number):
                pass  # one whose acknowledgement the consumer did not live to see comes once more
            await client.jetstream().delete_consumer("ORDERS", "fetcher-default")
    await client.close()


async def test_a_server_that_forgot_the_consumers_hands_nobody_an_order_twice(nats_server: NatsServer) -> None:
    """What runs when the server is killed goes on under its new delivery, and is acknowledged there."""
    taken: list[Delivery] = []
    finish = asyncio.Event()

    async def take(delivery: Delivery) -> None:
        taken.append(delivery)
        if delivery.order == fetch(1):
            await finish.wait()
        await delivery.ack()

    async with (
        connect(settings(nats_server.url), patience=LIMIT) as bus,
        running(bus.orders.receive("fetch.blob", "default", take, limit=4)),
    ):
        await bus.orders.send(fetch(1))

        async def has_taken(count: int) -> bool:
            return len(taken) >= count

        await eventually(lambda: has_taken(1))
        for round in (2, 3):
            await asyncio.to_thread(nats_server.restart)
            await bus.orders.send(fetch(round))
            await eventually(lambda wanted=round: has_taken(wanted))
        finish.set()

        async def nothing_is_out() -> bool:
            return not any([await bus.orders.is_out(order_subject(fetch(number))) for number in (1, 2, 3)])

        await eventually(nothing_is_out)
    assert sorted(each.order.blob.size for each in taken) == [1, 2, 3]


async def test_the_consumers_of_an_earlier_version_are_replaced(nats_server: NatsServer) -> None:
    """It had one for each kind, on disk; the queue takes none beside them. What they had not handed out is handed out."""
    client = await nats.connect(nats_server.url)
    stream = client.jetstream()
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        for kind in ("resolve.reference", "fetch.blob", "record.image"):
            name = kind.replace(".", "-") + "-default"
            await stream.add_consumer("ORDERS", durable_name=name, filter_subject=f"{kind}.default.>", ack_policy="explicit")
        await bus.orders.send(fetch(1))
        async with running(bus.orders.receive("fetch.blob", "default", taken.put, limit=2)):
            delivery = await soon(taken.get())
            assert delivery.order == fetch(1)
            await delivery.ack()
            assert [each.name for each in await stream.consumers_info("ORDERS")] == ["fetcher-default"]
    await client.close()


async def test_a_worker_has_one_consumer_for_all_its_kinds_and_each_kind_its_limit(nats_server: NatsServer) -> None:
    """Many orders of one kind wait; one of another kind behind them does not."""
    client = await nats.connect(nats_server.url)
    resolve = ResolveReference(store="default", reference="r", flight="0" * 16, opened=1, revision=1)
    resolved = asyncio.Event()
    most = busy = 0

    async def slowly(delivery: Delivery) -> None:
        nonlocal most, busy
        busy += 1
        most = max(most, busy)
        await resolved.wait()
        await asyncio.sleep(0)
        busy -= 1
        await delivery.ack()

    async def at_once(delivery: Delivery) -> None:
        resolved.set()
        await delivery.ack()

    async with (
        connect(settings(nats_server.url), patience=LIMIT) as bus,
        running(bus.orders.receive("fetch.blob", "default", slowly, limit=2)),
        running(bus.orders.receive("resolve.reference", "default", at_once, limit=1)),
    ):
        for number in range(30):
            await bus.orders.send(fetch(number))
        await bus.orders.send(resolve)
        await soon(resolved.wait())

        async def nothing_is_out() -> bool:
            return (await client.jetstream().stream_info("ORDERS")).state.messages == 0

        await eventually(nothing_is_out)
        (consumer,) = await client.jetstream().consumers_info("ORDERS")
        assert consumer.config.mem_storage and consumer.config.name == "fetcher-default"
    assert most == 2
    assert (await client.jetstream().stream_info("ORDERS")).config.max_consumers >= 4000
    await client.close()


async def test_what_led_to_an_event_travels_in_a_header(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url)
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        await bus.log.append(fetched(1), cause=17)
        message = await client.jetstream().get_msg("EVENTS", 1)
        assert message.headers["Pullonce-Cause"] == "17"
        assert json.loads(message.data)["type"] == "blob.fetched"
    await client.close()


async def test_listeners_are_told_of_a_reconnection(nats_server: NatsServer) -> None:
    back = asyncio.Event()
    async with connect(settings(nats_server.url), patience=LIMIT) as bus:
        bus.signals.on_reconnect(back.set)
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        await bus.signals.subscribe("x", lambda _, body: heard.put_nowait(body))
        nats_server.kill()
        await bus.signals.publish("x", b"lost, or not: never an error")
        await asyncio.to_thread(nats_server.start)
        await soon(back.wait())
        await bus.signals.publish("x", b"after")
        while await soon(heard.get()) != b"after":
            pass

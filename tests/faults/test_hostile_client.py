"""A client that means harm, on a bus that lets clients in as `pullonce bus init` does: with a client's key and no more.

It may publish requests and withdrawals, ask questions, and name any subject for the answers; a caretaker of one store may write
claims of that store. Whatever they make of that, others get their images, and no service ends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from pullonce.bus.nats.bus import NatsBus, connect
from pullonce.bus.nats.jetstream import last_message
from pullonce.client import Client
from pullonce.client import connect as connect_client
from pullonce.config import BusSettings
from pullonce.pulling.identity import identify_request
from schemas import routing, subjects
from schemas.events import EVENTS, Event, PullCancelled, PullRequested
from schemas.roles import ROLES
from tests.support.buses import digest, eventually
from tests.support.faulty import FaultyRegistry, held_until
from tests.support.images import image, layer, tar_of
from tests.support.registry import RegistryServer
from tests.support.secured import SERVICES, Guest, SecuredBus, SecuredServices, guest

LIMIT = 60
EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"

DERIVED = [kind for kind, event in EVENTS.items() if event not in (PullRequested, PullCancelled) and not kind.endswith(".lost")]
"""Facts that services say under ids which anybody could work out."""

KEY = f"$KV.claims.blob.default.{subjects.digest_token(digest(1))}"


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBus]:
    with SecuredBus(tmp_path_factory.mktemp("secured")) as running:
        asyncio.run(set_up(running))
        yield running


@pytest.fixture(scope="module")
def services(bus: SecuredBus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredServices]:
    """They live through all of this file, and must end well."""
    with SecuredServices(bus, tmp_path_factory.mktemp("home")) as running:
        yield running


async def set_up(bus: SecuredBus) -> None:
    async with as_role(bus, "admin"):
        pass


@asynccontextmanager
async def as_role(bus: SecuredBus, user: str) -> AsyncIterator[NatsBus]:
    async with connect(BusSettings.from_env(user, bus.environ(user)), patience=20) as found:
        yield found


@asynccontextmanager
async def stranger(bus: SecuredBus) -> AsyncIterator[Guest]:
    async with guest(bus.directory, "client", bus.url) as found:
        yield found


async def all_answer(bus: SecuredBus) -> None:
    """Every service answers now, before anything could have made a new connection."""
    async with as_role(bus, "admin") as admin:
        async with asyncio.timeout(LIMIT):
            pongs: list[str] = []
            while len(pongs) < len(SERVICES):
                found = await admin.signals.gather(subjects.PING_SUBJECT, b"", timeout=1.0)
                pongs = sorted({json.loads(each)["service"] for each in found})
    assert pongs == sorted(SERVICES)


# -- ids -------------------------------------------------------------------------------------------------------------------


def says(kind: str) -> str:
    return next(name for name, role in ROLES.items() if EVENTS[kind] in role.sends)


@pytest.mark.parametrize("kind", DERIVED)
async def test_a_message_id_that_was_taken_keeps_nothing_from_being_stored(bus: SecuredBus, kind: str) -> None:
    """A stream knows repetitions by their id, whatever their subject: junk under an ending's id, and there is no ending."""
    event: Event = msgspec.json.decode((EXAMPLES / f"{kind}.json").read_bytes(), type=EVENTS[kind])
    taken = routing.event_id(event)
    assert taken
    async with stranger(bus) as found, as_role(bus, says(kind)) as service, as_role(bus, "admin") as admin:
        answer = await found.client.request("pull.requested.a.b.c", b"junk", headers={"Nats-Msg-Id": taken}, timeout=10)
        junk = json.loads(answer.data)["seq"]
        first = await service.log.append(event)
        stored = await admin.log.last(routing.event_subject(event))
        assert stored is not None and (stored.sequence, stored.event) == (first, event) and first > junk
        assert found.refused == []


@pytest.mark.parametrize("junk", [b"junk", b"j" * 20_000], ids=["small", "removed"])
async def test_an_image_whose_ending_was_taken_is_pulled(
    bus: SecuredBus, services: SecuredServices, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, junk: bytes
) -> None:
    """What is too large for a request is removed from the log, while the server goes on remembering its id."""
    reference = registry.push(f"hostile/ids-{len(junk)}", "latest", image([layer(tar_of({"a": b"1"}))]))
    flight = identify_request(PullRequested(reference=reference)).flight
    use(monkeypatch, bus)
    async with stranger(bus) as found, connect_client(patience=20) as client:
        await all_answer(bus)
        for opened in range(await client.last_sequence() + 1, await client.last_sequence() + 300):
            taken = {"Nats-Msg-Id": f"pull.ended.default.{flight}.{opened}"}
            await found.client.publish("pull.requested.a.b.c", junk, headers=taken)
        await found.settle()
        for _ in range(2):
            await client.pull(reference, timeout=LIMIT)


def use(monkeypatch: pytest.MonkeyPatch, bus: SecuredBus, user: str = "client") -> None:
    for name, value in bus.environ(user).items():
        monkeypatch.setenv(name, value)


# -- answers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "question", [subjects.PING_SUBJECT, subjects.STATUS_SUBJECT, "progress.now.default", "store.now.default"]
)
async def test_no_answer_is_given_where_the_asker_may_not_write(
    bus: SecuredBus, services: SecuredServices, question: str
) -> None:
    """A service publishes its answer with its own rights: into a claim, into the log, to another service."""
    await all_answer(bus)
    async with as_role(bus, "admin") as admin, as_role(bus, "coordinator") as coordinator, stranger(bus) as found:
        key = KEY.removeprefix("$KV.claims.")
        before = await admin.claims.get(key)
        revision = before.revision if before else await coordinator.claims.put(key, b"ordered", expected=0)
        last = await admin.log.last_sequence()
        for reply in (
            *(
                KEY,
                "pull.completed.default.a.b",
                f"blob.fetched.default.{subjects.digest_token(digest(2))}",
                "store.opened.default",
            ),
            *("$JS.API.STREAM.DELETE.EVENTS", "parked.EVENTS.1", "pull.requested", "pullonce.ping", "fetch.blob.default.x.1"),
            *("_INBOX_coordinator.x", "_INBOX_fetcher.x.y"),
        ):
            await found.client.publish(question, b"", reply=reply)
        await found.settle()
        await all_answer(bus)
        claim = await admin.claims.get(key)
        assert claim is not None and claim.revision == revision
        assert await admin.log.last_sequence() == last


def command(subject: bytes, reply: bytes = b"", *, head: bytes = b"", body: bytes = b"") -> bytes:
    where = b" ".join(each for each in (subject, reply) if each)
    if head:
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (where, len(head), len(head) + len(body), head, body)
    return b"PUB %b %d\r\n%b\r\n" % (where, len(body), body)


UNREADABLE = [
    *(
        command(b"pullonce.ping", reply)
        for reply in (b"\xff\xfe", b"a\x0cb", b"_INBOX.\x80", b"_INBOX.>", b"_INBOX..", b"_INBOX." + b"x" * 3000)
    ),
    *(
        command(b"pullonce.ping", b"_INBOX.x", head=head)
        for head in (b"abcde", b"\r\n", b"NATS/1.0\r\n \r\n", b"NATS/1.0 \xff\r\n\r\n")
    ),
    *(command(b"pullonce.ping", b"_INBOX.x", head=b"NATS/1.0 " + b"9" * 5000 + b"\r\n\r\n"),),
    *(command(b"progress.now.default", b"_INBOX.x", body=body) for body in (b"[" * 100_000, b"\xff", b"{}")),
    *(command(b"pull.requested.default.\xff.\x0b", body=b"{}"), command(b"pull.cancelled.\xc3\x28.a.b", body=b"null")),
    *(
        command(b"pull.requested", head=head, body=b"{}")
        for head in (b"NATS/1.0 503", b"NATS/1.0\r\ntraceparent: 00-\xff\r\n\r\n")
    ),
]


async def test_messages_that_nobody_can_read_stop_nobody_from_reading_on(bus: SecuredBus, services: SecuredServices) -> None:
    """Subjects, replies and headers may be any bytes. nats-py stops reading for good, and in silence, on some of them."""
    await all_answer(bus)
    async with stranger(bus) as found:
        for line in UNREADABLE:
            found.send_bytes(line)
        await found.settle()
    await all_answer(bus)


# -- claims ----------------------------------------------------------------------------------------------------------------


async def test_a_caretaker_cannot_empty_the_claims_of_others(bus: SecuredBus) -> None:
    theirs = f"blob.other.{subjects.digest_token(digest(3))}"
    async with as_role(bus, "coordinator") as coordinator, guest(bus.directory, "caretaker", bus.url) as caretaker:
        await coordinator.claims.put(theirs, b"held", expected=0)
        for how in ("all", "sub"):
            own = f"$KV.claims.blob.default.{subjects.digest_token(digest(4))}"
            answer = await caretaker.client.request(own, b"{}", headers={"Nats-Rollup": how}, timeout=10)
            assert "error" in json.loads(answer.data)
        found = await coordinator.claims.get(theirs)
        assert found is not None and found.value == b"held"


# -- withdrawals -----------------------------------------------------------------------------------------------------------


async def test_nobody_withdraws_what_others_asked_for(
    bus: SecuredBus, services: SecuredServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every client may publish withdrawals, and sequences are numbers in a row. Those of a bare request do not count either."""
    use(monkeypatch, bus)
    tar = layer(tar_of({"withdrawn": b"x" * 1000}))
    release = asyncio.Event()
    async with FaultyRegistry(image([tar])) as slow, stranger(bus) as found, connect_client(patience=20) as client:
        slow.plan(f"blobs/{tar.digest}", held_until(release))
        identity = identify_request(PullRequested(reference=slow.reference))
        told = {"reference": identity.reference, "flight": identity.flight}
        before = await client.last_sequence()
        bare = await found.client.request("pull.requested", json.dumps({"reference": slow.reference}).encode(), timeout=10)
        pulls = [asyncio.create_task(client.pull(slow.reference, timeout=LIMIT)) for _ in range(3)]
        await eventually(lambda: asked_at(client, before + 4))
        for request in range(before, before + 20):
            for secret in ("", "a guess", str(request)):
                event = json.dumps({**told, "request": request, "secret": secret}).encode()
                subject = subjects.pull_subject("cancelled", "default", identity.reference, identity.flight)
                await found.client.publish(subject, event, headers={"Nats-Msg-Id": f"pull.cancelled.{request}.{secret}"})
        await found.settle()
        assert found.refused == [] and json.loads(bare.data)["seq"] > before
        release.set()
        assert {ending.sharing.requests for ending in await asyncio.gather(*pulls)} == {4}


async def asked_at(client: Client, sequence: int) -> bool:
    return await client.last_sequence() >= sequence


# -- measure ---------------------------------------------------------------------------------------------------------------


async def test_what_no_request_can_be_does_not_fill_the_log(bus: SecuredBus, services: SecuredServices) -> None:
    """A request may have fields that nobody knows. One of half a megabyte is put aside, by its beginning, and taken out of
    the log."""
    await all_answer(bus)
    async with stranger(bus) as found, as_role(bus, "admin") as admin:
        before = await admin.log.extent()
        junk = json.dumps({"reference": "redis", "unknown": "x" * 500_000}).encode()
        for number in range(20):
            subject = ("pull.requested", "pull.requested.default.a.b", "pull.cancelled.default.a.b")[number % 3]
            await found.client.request(subject, junk, timeout=20)
        await eventually(lambda: smaller(admin, before.bytes + 1_000_000))
        after = await admin.log.extent()
        assert after.last >= before.last + 20
        parked = await found_parked(admin, before.last + 1)
        assert len(parked) <= 4096
    await all_answer(bus)


async def smaller(admin: NatsBus, size: int) -> bool:
    return (await admin.log.extent()).bytes < size


async def found_parked(admin: NatsBus, sequence: int) -> bytes:
    stored = await last_message(admin.log._link, "PARKED", subjects.parked_subject("EVENTS", sequence))
    assert stored is not None and stored.headers["Pullonce-Reason"] == "a pull.requested of 500037 bytes; it may have 16384"
    assert int(stored.headers["Pullonce-Size"]) == 500_037
    return stored.body


async def test_a_flood_does_not_stand_before_somebody_elses_image(
    bus: SecuredBus, services: SecuredServices, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand images that nobody has, asked for at once: one that is there is answered before most of them."""
    flood = 2000
    reference = registry.push("hostile/flood", "latest", image([layer(tar_of({"flood": b"1"}))]))
    use(monkeypatch, bus)
    async with stranger(bus) as found, as_role(bus, "admin") as admin, connect_client(patience=20) as client:
        await client.pull(reference, timeout=LIMIT)
        before = await admin.log.last_sequence()
        for number in range(flood):
            body = {"reference": f"{registry.host}/flood/x{number}:latest"}
            await found.client.publish("pull.requested", json.dumps(body).encode())
        await found.settle()
        await client.pull(reference, timeout=LIMIT)
        # Each request of the flood becomes two facts more: that it is not there, and the ending.
        assert await admin.log.last_sequence() - before < 2 * flood
        await eventually(lambda: asked_at(client, before + 3 * flood))

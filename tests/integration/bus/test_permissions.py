"""A bus with a user for each role: what each of them can, what it is refused, and that pulls need no more than that."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from pullonce.bus.nats.bus import connect
from pullonce.bus.nats.deployment import write
from pullonce.bus.nats.permissions import EVERY_STORE
from pullonce.client import connect as connect_client
from pullonce.config import BusSettings
from pullonce.errors import BusUnavailable, BusUnsuitable
from schemas.events import Event, PullRequested
from schemas.subjects import order_consumer, pull_subject
from tests.support.command import environment as bare
from tests.support.images import Image, image, layer, tar_of
from tests.support.registry import RegistryServer
from tests.support.secured import Guest, SecuredBus, SecuredServices, guest, stranger

IMAGE = "docker%2Eio/library/redis:latest.f7b3e13a1463fa75"
PULL = f"default.{IMAGE}"
HASH = f"sha256-{'0' * 64}"
BLOB = f"default.{HASH}"
EVENTS_CONSUMER = "$JS.API.CONSUMER.CREATE.EVENTS.x"

MAY_SAY = {
    "client": ["pull.requested", f"pull.requested.{PULL}", f"pull.cancelled.{PULL}", "pullonce.ping", "coordinator.status"],
    "coordinator": [
        *(f"pull.completed.{PULL}", f"blob.claimed.{BLOB}", f"fetch.blob.{BLOB}.1", f"$KV.claims.blob.{BLOB}"),
        *("_INBOX.x", "_INBOX_ledger.x", "_INBOX_caretaker.x", "$JS.API.STREAM.MSG.GET.EVENTS"),
    ],
    "fetcher": [
        *(f"pull.resolved.{PULL}", f"blob.fetched.{BLOB}", "store.opened.default", f"progress.{BLOB}"),
        *("_INBOX.x", "_INBOX_ledger.x", "_INBOX_unpacker.x", "_INBOX_caretaker.x", "$JS.API.STREAM.MSG.GET.EVENTS"),
    ],
    "unpacker": [f"layer.unpacked.{BLOB}", f"layer.lost.{BLOB}", f"progress.{BLOB}", "_INBOX.x", "_INBOX_fetcher.x"],
    "ledger": ["pullonce.here", EVENTS_CONSUMER, "_INBOX.x"],
    "caretaker": [
        *(f"blob.lost.{BLOB}", f"layer.lost.{BLOB}", f"$KV.claims.blob.{BLOB}", f"$KV.claims.layer.{BLOB}"),
        *("coordinator.status", f"pull.requested.{PULL}", f"pull.cancelled.{PULL}", "$JS.API.STREAM.MSG.GET.KV_claims"),
        f"$JS.API.DIRECT.GET.EVENTS.pull.completed.{PULL}",
        "$JS.API.STREAM.INFO.ORDERS",
        *("push.image.default", "push.now.default.0123456789abcdef"),
    ],
}

REFUSED = {
    "client": [
        *(
            f"pull.completed.{PULL}",
            f"pull.failed.{PULL}",
            f"pull.resolved.{PULL}",
            f"blob.fetched.{BLOB}",
            "store.opened.default",
            "push.image.default",
        ),
        *(f"fetch.blob.{BLOB}.1", f"$KV.claims.blob.{BLOB}", "parked.EVENTS.1", "ledger.query", "_INBOX_fetcher.x"),
        *(EVENTS_CONSUMER, "$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.PURGE.EVENTS", "$JS.API.STREAM.MSG.GET.EVENTS"),
        *("$JS.API.DIRECT.GET.EVENTS", "$JS.API.DIRECT.GET.EVENTS.pull.requested", "$JS.API.STREAM.CREATE.EVENTS"),
    ],
    "coordinator": [
        *(f"pull.requested.{PULL}", f"pull.resolved.{PULL}", f"blob.fetched.{BLOB}", f"layer.unpacked.{BLOB}"),
        *("store.opened.default", "$JS.API.STREAM.DELETE.EVENTS", "$JS.ACK.ORDERS.x.1.1.1.1.1"),
        *("_INBOX_fetcher.x", "_INBOX_unpacker.x"),
    ],
    "fetcher": [
        *("_INBOX_coordinator.x", "$JS.API.DIRECT.GET.EVENTS"),
        *(f"pull.completed.{PULL}", f"pull.failed.{PULL}", f"pull.requested.{PULL}", f"layer.unpacked.{BLOB}"),
        *(f"fetch.blob.{BLOB}.1", f"$KV.claims.blob.{BLOB}", f"blob.claimed.{BLOB}", f"blob.fetched.other.sha256-{'0' * 64}"),
        *("$JS.API.CONSUMER.CREATE.ORDERS.unpacker-default.unpack.layer.default.>", "store.opened.other"),
        *("$JS.API.CONSUMER.MSG.NEXT.ORDERS.unpacker-default", EVENTS_CONSUMER, "$JS.API.STREAM.PURGE.ORDERS"),
    ],
    "unpacker": [
        *(f"blob.fetched.{BLOB}", f"blob.failed.{BLOB}", f"pull.completed.{PULL}", f"pull.resolved.{PULL}"),
        *(f"unpack.layer.{BLOB}.1", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.fetcher-default", "store.opened.default"),
        "$JS.API.CONSUMER.CREATE.ORDERS.unpacker-default.fetch.blob.default.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.unpacker-default",
    ],
    "ledger": [
        *(f"pull.requested.{PULL}", f"pull.completed.{PULL}", f"blob.lost.{BLOB}", f"fetch.blob.{BLOB}.1"),
        *("$JS.API.STREAM.PURGE.EVENTS", "$JS.API.STREAM.DELETE.EVENTS", f"$KV.claims.blob.{BLOB}", "coordinator.status"),
    ],
    "caretaker": [
        *(f"pull.completed.{PULL}", f"pull.failed.{PULL}", f"pull.resolved.{PULL}", f"pull.recorded.{PULL}", "pull.requested"),
        *(
            f"blob.fetched.{BLOB}",
            f"blob.failed.{BLOB}",
            f"blob.claimed.{BLOB}",
            f"layer.unpacked.{BLOB}",
            f"layer.failed.{BLOB}",
        ),
        *("store.opened.default", f"fetch.blob.{BLOB}.1", f"progress.{BLOB}", "pullonce.here", "parked.EVENTS.1"),
        *(
            f"blob.lost.other.{HASH}",
            f"layer.lost.other.{HASH}",
            f"$KV.claims.blob.other.{HASH}",
            f"$KV.claims.layer.other.{HASH}",
        ),
        *("$KV.claims.resolve.default.f7b3e13a1463fa75.1", "$KV.claims.record.default.f7b3e13a1463fa75.1"),
        *(
            f"pull.requested.other.{IMAGE}",
            f"pull.cancelled.other.{IMAGE}",
            f"$JS.API.DIRECT.GET.EVENTS.pull.completed.other.{IMAGE}",
        ),
        *(
            f"$JS.API.DIRECT.GET.KV_claims.$KV.claims.blob.{BLOB}",
            "$JS.API.DIRECT.GET.KV_claims",
            "$JS.API.STREAM.MSG.GET.EVENTS",
            "$JS.API.STREAM.MSG.GET.ORDERS",
        ),
        *(
            f"$JS.API.DIRECT.GET.EVENTS.pull.requested.{PULL}",
            "$JS.API.STREAM.PURGE.KV_claims",
            "$JS.API.STREAM.DELETE.KV_claims",
        ),
        *(EVENTS_CONSUMER, "$JS.API.CONSUMER.CREATE.KV_claims.x", "$JS.API.STREAM.PURGE.ORDERS", "$JS.API.STREAM.PURGE.EVENTS"),
        *("$JS.API.CONSUMER.MSG.NEXT.ORDERS.fetcher-default", "ledger.query"),
    ],
}

DEAF = {
    "client": ["pull.requested.>", "pull.>", ">", "fetch.blob.>", "$KV.claims.>", "_INBOX_fetcher.>", "$JS.API.>"],
    "coordinator": ["_INBOX.>", "fetch.blob.>", "pull.requested.>", "ledger.query"],
    "fetcher": ["_INBOX.>", "pull.requested.>", "unpack.layer.>", "fetch.blob.>", "blob.*.other.*", "coordinator.status"],
    "unpacker": ["_INBOX.>", "pull.requested.>", "fetch.blob.>", "progress.other.*"],
    "ledger": ["_INBOX.>", "_INBOX_coordinator.>", "fetch.blob.>", "$KV.claims.>"],
    "caretaker": [
        *("_INBOX.>", "_INBOX_coordinator.>", "$KV.claims.>", "pull.requested.>", "coordinator.status"),
        *("pull.completed.>", f"pull.completed.other.{IMAGE}", "blob.>", "fetch.blob.>"),
    ],
}


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SecuredBus]:
    with SecuredBus(tmp_path) as secured:
        yield secured


def settings(bus: SecuredBus, user: str) -> BusSettings:
    return BusSettings.from_env(user, bus.environ(user))


@asynccontextmanager
async def set_up(bus: SecuredBus, user: str) -> AsyncIterator[Guest]:
    """One user's plain connection to a bus that the administrator has set up."""
    async with connect(settings(bus, "admin"), patience=20):
        pass
    async with guest(bus.directory, user, bus.url) as found:
        yield found


@pytest.mark.parametrize("user", MAY_SAY)
async def test_a_role_can_say_what_is_its_own(bus: SecuredBus, user: str) -> None:
    async with set_up(bus, user) as found:
        assert [subject for subject in MAY_SAY[user] if not await found.may_publish(subject)] == []


@pytest.mark.parametrize("user", REFUSED)
async def test_a_role_is_refused_what_is_not_its_own(bus: SecuredBus, user: str) -> None:
    async with set_up(bus, user) as found:
        assert [subject for subject in REFUSED[user] if await found.may_publish(subject)] == []


@pytest.mark.parametrize("user", DEAF)
async def test_a_role_does_not_hear_what_is_not_for_it(bus: SecuredBus, user: str) -> None:
    async with set_up(bus, user) as found:
        assert [subject for subject in DEAF[user] if await found.may_hear(subject)] == []


async def test_a_client_cannot_have_its_own_words_sent_as_an_ending(bus: SecuredBus) -> None:
    """A request to JetStream says under which subject it is answered; a stored request would come back as an ending."""
    forged = {
        "reference": "redis", "flight": "f7b3e13a1463fa75", "opened": 1, "covers": 999, "code": "forged", "message": "forged",
    }  # fmt: skip
    ending = pull_subject("failed", "default", "docker.io/library/redis:latest", "f7b3e13a1463fa75")
    async with set_up(bus, "client") as found, connect(settings(bus, "admin"), patience=20) as admin:
        await found.client.request("pull.requested", json.dumps(forged).encode(), timeout=10)
        query = json.dumps({"last_by_subj": "pull.requested"}).encode()
        for subject, body in (
            ("$JS.API.DIRECT.GET.EVENTS", query),
            ("$JS.API.DIRECT.GET.EVENTS.pull.requested", b""),
            ("$JS.API.STREAM.MSG.GET.EVENTS", query),
        ):
            await found.client.publish(subject, body, reply=ending)
        await found.settle()
        assert len(found.refused) == 3
        assert await admin.log.last(ending) is None


async def test_nobody_comes_in_without_a_key(bus: SecuredBus) -> None:
    with pytest.raises((nats.errors.Error, OSError)):
        await stranger(bus.url)


async def test_a_service_says_that_it_is_refused(bus: SecuredBus, tmp_path: Path) -> None:
    other = SecuredBus(tmp_path / "other")
    strange = {"PULLONCE_NATS_CREDS": other.environ("fetcher")["PULLONCE_NATS_CREDS"]}
    wrong = BusSettings.from_env("fetcher", bus.environ("fetcher") | strange)
    with pytest.raises(BusUnsuitable, match="refuses these credentials"):
        async with connect(wrong, patience=20):
            pass


@pytest.mark.parametrize(("name", "content"), [("PULLONCE_NATS_CREDS", "nonsense"), ("PULLONCE_NATS_CA", "nonsense")])
async def test_files_that_cannot_be_used_are_named(bus: SecuredBus, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "bad").write_text(content)
    for path in (tmp_path / "bad", tmp_path / "missing"):
        with pytest.raises(BusUnsuitable, match=str(path)):
            async with connect(BusSettings.from_env("x", bus.environ("client") | {name: str(path)}), patience=5):
                pass


async def test_a_server_that_nobody_vouches_for_is_refused(bus: SecuredBus, tmp_path: Path) -> None:
    other = SecuredBus(tmp_path / "other")
    strange = {"PULLONCE_NATS_CA": other.environ("client")["PULLONCE_NATS_CA"]}
    with pytest.raises(BusUnsuitable, match="PULLONCE_NATS_CA"):
        async with connect(BusSettings.from_env("client", bus.environ("client") | strange), patience=20):
            pass


async def test_nothing_is_said_in_clear_where_tls_is_wanted(nats_url: str, bus: SecuredBus) -> None:
    """nats-py by itself goes on unencrypted where a server, or somebody in between, does not ask for TLS."""
    for wanted in ({"PULLONCE_NATS_URL": nats_url.replace("nats://", "tls://")}, {"PULLONCE_NATS_URL": nats_url}):
        environ = {"PULLONCE_NATS_CA": bus.environ("client")["PULLONCE_NATS_CA"]} | wanted
        with pytest.raises(BusUnsuitable, match="offers no TLS"):
            async with connect(BusSettings.from_env("x", environ), patience=20):
                pass


async def test_who_may_not_make_streams_waits_for_them(bus: SecuredBus) -> None:
    with pytest.raises(BusUnavailable):
        async with connect(settings(bus, "coordinator"), patience=0.5):
            pass
    async with connect(settings(bus, "admin"), patience=20), connect(settings(bus, "coordinator"), patience=20) as coordinator:
        assert await coordinator.log.last_sequence() == 0


async def test_what_is_not_permitted_is_said(bus: SecuredBus) -> None:
    async with set_up(bus, "client"), connect(settings(bus, "ledger"), patience=20) as ledger:
        with pytest.raises(BusUnsuitable, match="does not permit"):
            await ledger.log.append(PullRequested(reference="redis"))


async def test_writing_the_files_again_keeps_the_keys(bus: SecuredBus) -> None:
    before = {path: path.read_text() for path in bus.directory.rglob("nkey")}
    write(bus.plan)
    assert len(before) == 8 and {path: path.read_text() for path in bus.directory.rglob("nkey")} == before
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in [*before, *bus.directory.rglob("*.key"), *bus.directory.rglob("env")]
    )


def an_image(mark: bytes = b"") -> Image:
    return image([layer(tar_of({f"file-{number}": mark + bytes([number]) * 5000})) for number in range(3)])


def run(*words: str, home: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pullonce", *words]
    return subprocess.run(command, env=bare(home) | environ, capture_output=True, text=True, timeout=90, check=False)


async def test_a_claim_of_a_caretaker_cannot_be_sent_as_an_ending(bus: SecuredBus) -> None:
    """Whoever writes a value and has it sent to any subject forges what it likes; a claim is answered within a document."""
    ending = pull_subject("completed", "default", "docker.io/library/redis:latest", "f7b3e13a1463fa75")
    async with set_up(bus, "caretaker") as found, connect(settings(bus, "admin"), patience=20) as admin:
        key = f"$KV.claims.blob.{BLOB}"
        forged = {"type": "pull.completed", "reference": "redis", "flight": "f7b3e13a1463fa75", "opened": 1, "covers": 999}
        await found.client.request(key, json.dumps(forged).encode(), timeout=10)
        await found.client.publish("$JS.API.STREAM.MSG.GET.KV_claims", json.dumps({"last_by_subj": key}).encode(), reply=ending)
        await found.settle()
        answer = await found.client.request(
            "$JS.API.STREAM.MSG.GET.KV_claims", json.dumps({"last_by_subj": key}).encode(), timeout=10
        )
        assert found.refused == [] and json.loads(answer.data)["message"]["subject"] == key
        recorded = await admin.log.last(ending)
        assert recorded is None or not isinstance(recorded.event, Event), "an answer of the server's is no event"


def test_what_becomes_of_a_store_is_its_caretakers(tmp_path: Path) -> None:
    """rm, gc, pin and verify --repair, with the key of the caretaker: it needs no other, and that of a client will not do."""
    home = tmp_path / "home"
    registry = RegistryServer(tmp_path / "registry").start()
    try:
        kept, gone = (registry.push("some/image", tag, an_image(mark)) for tag, mark in (("1", b"a"), ("2", b"b")))
        with SecuredBus(tmp_path) as bus:
            made = run("bus", "setup", home=home, environ=bus.environ("admin"))
            assert made.returncode == 0, made.stderr
            caretaker = bus.environ("caretaker")
            with SecuredServices(bus, home):
                for reference in (kept, gone):
                    pulled = run("pull", "-q", "--timeout", "60", reference, home=home, environ=bus.environ("client"))
                    assert pulled.returncode == 0, pulled.stderr
                for words in (("pin", kept), ("rm", gone)):
                    done = run(*words, home=home, environ=caretaker)
                    assert done.returncode == 0, done.stderr
                again = run("pull", "-q", "--timeout", "60", kept, home=home, environ=bus.environ("gateway"))
                assert again.returncode == 0, f"a gateway pulls for others: {again.stderr}"
                assert run("status", home=home, environ=bus.environ("gateway")).returncode == 0
                target = kept.replace("some/image", "other/image")
                pushed = run("push", kept, target, "--json", home=home, environ=caretaker)
                assert pushed.returncode == 0 and json.loads(pushed.stdout)["state"] == "pushed", pushed.stderr
                refused = run("push", kept, target, home=home, environ=bus.environ("client"))
                assert refused.returncode != 0 and "does not permit" in refused.stderr
                refused = run("gc", home=home, environ=bus.environ("client"))
                assert refused.returncode != 0 and "does not permit" in refused.stderr
                collected = run("gc", "--json", home=home, environ=caretaker)
                assert collected.returncode == 0, collected.stderr
                assert json.loads(collected.stdout)["blobs"] == 5 and json.loads(collected.stdout)["busy"] == 0
                blob = max((home / "stores" / "default" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
                blob.chmod(0o644)
                blob.write_bytes(b"x" * blob.stat().st_size)
                found = run("verify", "--repair", "--json", home=home, environ=caretaker)
                assert found.returncode == 0, found.stderr
                assert len(json.loads(found.stdout)["damaged"]) >= 1 and len(json.loads(found.stdout)["repaired"]) == 1
    finally:
        registry.stop()


async def test_a_store_has_a_caretaker_of_its_own(tmp_path: Path) -> None:
    with SecuredBus(tmp_path, stores=("default", "rack-2")) as bus:
        assert bus.environ("caretaker-rack-2")["PULLONCE_STORE"] == "rack-2"
        async with set_up(bus, "caretaker-rack-2") as found:
            assert await found.may_publish(f"blob.lost.rack-2.{HASH}") and await found.may_publish(
                f"$KV.claims.layer.rack-2.{HASH}"
            )
            assert not await found.may_publish(f"blob.lost.{BLOB}") and not await found.may_publish(f"$KV.claims.layer.{BLOB}")


async def test_machines_that_trust_each_other_share_a_key_a_role(tmp_path: Path) -> None:
    with SecuredBus(tmp_path, stores=(EVERY_STORE,)) as bus:
        assert "PULLONCE_STORE" not in bus.environ("fetcher")
        async with set_up(bus, "fetcher") as found:
            for store in ("default", "worker-1"):
                assert await found.may_publish(f"store.opened.{store}") and await found.may_publish(
                    f"blob.fetched.{store}.{HASH}"
                )
                assert await found.may_publish(f"$JS.API.CONSUMER.CREATE.ORDERS.{order_consumer('fetcher', store)}")
                assert not await found.may_publish(f"layer.unpacked.{store}.{HASH}")
                assert not await found.may_publish(f"pull.completed.{store}.{IMAGE}")


@pytest.mark.parametrize("scheme, stores", [("tls", ("default",)), ("nats", (EVERY_STORE,))])
def test_pulls_need_no_more_than_the_roles_may(tmp_path: Path, scheme: str, stores: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    registry = RegistryServer(tmp_path / "registry").start()
    try:
        reference = registry.push("some/image", "1", an_image())
        with SecuredBus(tmp_path, scheme=scheme, stores=stores) as bus:
            made = run("bus", "setup", home=home, environ=bus.environ("admin"))
            assert made.returncode == 0, made.stderr
            with SecuredServices(bus, home):
                client = bus.environ("client")
                for _ in range(2):
                    pulled = run("pull", "--timeout", "60", "--json", reference, home=home, environ=client)
                    assert pulled.returncode == 0, pulled.stderr
                    assert json.loads(pulled.stdout)["type"] == "pull.completed"
                missing = run("pull", "--timeout", "60", f"{reference}-not-there", home=home, environ=client)
                assert missing.returncode == 1 and "MANIFEST_UNKNOWN" in missing.stderr
                assert run("ping", home=home, environ=client).returncode == 0
                assert run("status", home=home, environ=client).returncode == 0
                refused = run("events", home=home, environ=client)
                assert refused.returncode == 3 and "does not permit" in refused.stderr
                told = run("events", "--json", home=home, environ=bus.environ("admin"))
                assert told.stdout.count("pull.completed") and run("history", home=home, environ=bus.environ("admin")).stdout
    finally:
        registry.stop()


async def test_the_python_client_lives_with_the_role_of_a_client(bus: SecuredBus, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bus.environ("client").items():
        monkeypatch.setenv(name, value)
    async with connect(settings(bus, "admin"), patience=20), connect_client(patience=20) as client:
        assert await client.last_sequence() == 0
        assert await client.ping(0.2) == []

"""Pulls that clients of the mirror wait for, and growing files that are handed on, in one process and on a real disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from pullonce.errors import PullFailed
from pullonce.oci.digest import digest_bytes
from pullonce.store.content import ContentStore, open_store
from schemas.events import PullCompleted, PullResolved, ResolvedLayer, Source
from schemas.oci import Descriptor, Digest
from services.gateway.mirror import pulls
from services.gateway.mirror.following import Broken, Followed
from services.gateway.mirror.listening import Place
from services.gateway.mirror.opening import Outside, build, mirroring
from services.gateway.mirror.pulls import Order, Pulls, Tell
from services.gateway.mirror.refusals import Refusal
from services.gateway.mirror.routes import Rules

PLACE = "registry.example/app"
ORDER = Order(f"{PLACE}:1", "anonymous", "always")
CONTENT = os.urandom(300_000)
BLOB = Descriptor(media_type="", digest=digest_bytes(CONTENT), size=len(CONTENT))
MANIFEST = Descriptor(media_type="", digest=Digest("sha256:" + "a" * 64), size=10)
CONFIG = Descriptor(media_type="", digest=Digest("sha256:" + "b" * 64), size=10)


def resolved(*, fetched: bool = False) -> PullResolved:
    return PullResolved(
        reference=ORDER.reference, flight="0" * 16, opened=1, platform="linux/amd64",
        source=Source(registry="registry.example", repository="app"), digest=MANIFEST.digest, manifest=MANIFEST, config=CONFIG,
        layers=(ResolvedLayer(blob=BLOB, fetched=fetched),),
    )  # fmt: skip


def completed() -> PullCompleted:
    return PullCompleted(
        reference=ORDER.reference, flight="0" * 16, opened=1, covers=3, platform="linux/amd64", digest=MANIFEST.digest,
        manifest=MANIFEST.digest, image_id=CONFIG.digest,
    )  # fmt: skip


class Bus:
    """What a pull says, when the test has it say so."""

    def __init__(self) -> None:
        self.begun = 0
        self.withdrawn = 0
        self.tell: Tell = lambda fact: None
        self.ending: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def begin(self, order: Order, tell: Tell) -> object:
        self.begun, self.tell = self.begun + 1, tell
        try:
            return await asyncio.shield(self.ending)
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_many_wait_for_one_pull_and_the_last_that_leaves_withdraws_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "LEFT", 0.01)
    bus = Bus()
    made = Pulls(bus.begin, lambda event: None)
    waiting = [asyncio.create_task(made.resolve(ORDER, 20)) for _ in range(20)]
    await until(lambda: bus.begun == 1)
    for task in waiting[1:]:
        task.cancel()
    await asyncio.gather(*waiting[1:], return_exceptions=True)
    await asyncio.sleep(0.05)
    assert bus.withdrawn == 0, "one still waits"
    waiting[0].cancel()
    await until(lambda: bus.withdrawn == 1)
    assert bus.begun == 1


async def test_who_comes_while_a_pull_is_withdrawn_begins_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "LINGER", 0.0)
    bus = Bus()
    made = Pulls(bus.begin, lambda event: None)
    waiting = asyncio.create_task(made.resolve(ORDER, 20))
    await until(lambda: bus.begun == 1)
    bus.tell(resolved())
    await waiting
    (pull,) = made._pulls.values()
    made._withdraw(pull)
    assert made.of_blob(BLOB.digest) is None
    waiting = asyncio.create_task(made.resolve(ORDER, 20))
    await until(lambda: bus.begun == 2)
    bus.tell(resolved())
    assert await waiting == MANIFEST.digest


async def test_what_a_tag_names_is_known_before_the_pull_has_ended() -> None:
    bus, heard = Bus(), list[PullResolved]()
    made = Pulls(bus.begin, heard.append)
    waiting = asyncio.create_task(made.resolve(ORDER, 20))
    await until(lambda: bus.begun == 1)
    bus.tell(resolved())
    assert await waiting == MANIFEST.digest and heard == [resolved()]
    assert made.of_blob(BLOB.digest) is not None and made.of_blob(CONFIG.digest) is None
    assert await made.resolve(ORDER, 20) == MANIFEST.digest, "without another pull"
    bus.ending.set_result(completed())
    await until(lambda: made.of_blob(BLOB.digest) is None)
    assert await made.resolve(ORDER, 20) == MANIFEST.digest, "for a moment the answer counts"
    assert bus.begun == 1


async def test_a_flight_that_is_joined_at_its_end_says_what_it_was() -> None:
    bus = Bus()
    bus.ending.set_result(completed())
    assert await Pulls(bus.begin, lambda event: None).resolve(ORDER, 20) == MANIFEST.digest


async def test_failures_are_told_and_not_remembered() -> None:
    bus = Bus()
    bus.ending.set_exception(PullFailed("no such tag", code="MANIFEST_UNKNOWN"))
    made = Pulls(bus.begin, lambda event: None)
    for _ in range(2):
        with pytest.raises(Refusal, match="no such tag") as refused:
            await made.resolve(ORDER, 20)
        assert refused.value.code == "MANIFEST_UNKNOWN"
    assert bus.begun == 2


async def test_whoever_waits_too_long_is_sent_on() -> None:
    bus = Bus()
    made = Pulls(bus.begin, lambda event: None)
    with pytest.raises(Refusal) as refused:
        await made.resolve(ORDER, 0.01)
    assert refused.value.code == "pullonce.late" and bus.withdrawn == 0
    await made.close()
    assert bus.withdrawn == 1


async def test_a_growing_file_is_given_but_for_its_last_byte(tmp_path: Path) -> None:
    content = open_store(tmp_path / "store")
    with Followed(content, BLOB.digest, BLOB.size) as followed:
        assert followed.look() == 0
        async with content.ingest(BLOB) as ingest:
            await ingest.write(CONTENT[:1000])
            await ingest.flush()
            assert followed.look() == 1000
            await ingest.write(CONTENT[1000:])
            await ingest.flush()
            assert (followed.look(1000), followed.verified) == (BLOB.size - 1, False)
            await ingest.commit()
        assert (followed.look(BLOB.size - 1), followed.verified) == (BLOB.size, True)


async def test_what_was_dropped_breaks_off_who_has_some_of_it(tmp_path: Path) -> None:
    content = open_store(tmp_path / "store")
    with Followed(content, BLOB.digest, BLOB.size) as followed:
        async with content.ingest(BLOB) as ingest:
            await ingest.write(b"x" * 1000)
            await ingest.flush()
            assert followed.look() == 1000
            await ingest.restart()
            assert followed.look() == 0, "who has nothing waits"
            with pytest.raises(Broken):
                followed.look(500)
    await content.put(BLOB, CONTENT)
    with Followed(content, BLOB.digest, BLOB.size + 1) as followed, pytest.raises(Broken):
        followed.look()


async def test_another_file_that_becomes_the_blob_is_not_taken_for_what_was_given(tmp_path: Path) -> None:
    content = open_store(tmp_path / "store")
    with Followed(content, BLOB.digest, BLOB.size) as followed:
        async with content.ingest(BLOB) as ingest:
            await ingest.write(CONTENT[:1000])
            await ingest.flush()
            assert followed.look() == 1000
            await content.put(BLOB, CONTENT)
            with pytest.raises(Broken):
                followed.look(1000)
            assert followed.look() == 0, "who has nothing begins with the other"
            assert followed.look() == BLOB.size and followed.verified


@asynccontextmanager
async def mirrored(bus: Bus, content: ContentStore, socket: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A mirror of a store on a unix socket, whose access was given."""

    def nobody() -> object:
        raise AssertionError("nobody is asked")

    mirror, parts = build(content.root, "default", Outside(bus.begin, nobody, lambda: True))  # type: ignore[arg-type]
    parts.access._given[PLACE, "anonymous", Digest("")] = asyncio.get_running_loop().time() + 600.0
    rules = Rules("docker.io", "anonymous", "", any_host=True, hold=nobody)  # type: ignore[arg-type]
    async with (
        mirroring(mirror, parts, rules, Place(path=socket)),
        aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(socket))) as session,
    ):
        yield session


async def test_who_reads_keeps_a_pull_going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a layer takes: what is withdrawn is what nobody reads."""
    monkeypatch.setattr(pulls, "LINGER", 0.05)
    content, bus = open_store(tmp_path / "store"), Bus()
    await content.put(manifest := Descriptor(media_type="", digest=digest_bytes(b"{}"), size=2), b"{}")
    event = resolved()
    async with mirrored(bus, content, tmp_path / "m.sock") as session:
        asking = asyncio.create_task(session.get("/v2/app/manifests/1?ns=registry.example"))
        await until(lambda: bus.begun == 1)
        bus.tell(PullResolved(**{name: getattr(event, name) for name in event.__struct_fields__} | {"digest": manifest.digest}))
        assert (await asking).status == 200
        async with content.ingest(BLOB) as ingest:
            await ingest.write(CONTENT[:1000])
            await ingest.flush()
            async with session.get(f"/v2/app/blobs/{BLOB.digest}?ns=registry.example") as answer:
                assert answer.status == 200
                got = await answer.content.readexactly(1000)
                await asyncio.sleep(0.2)
                assert bus.withdrawn == 0
                await ingest.write(CONTENT[1000:])
                await ingest.commit()
                assert got + await answer.read() == CONTENT
        await until(lambda: bus.withdrawn == 1)


async def test_a_pull_that_ends_under_a_reader_is_begun_again_for_it(tmp_path: Path) -> None:
    """It was somebody else's, who left; the reader has a right of its own."""
    content, bus = open_store(tmp_path / "store"), Bus()
    async with mirrored(bus, content, tmp_path / "m.sock") as session:
        asking = asyncio.create_task(session.get("/v2/app/manifests/1?ns=registry.example"))
        await until(lambda: bus.begun == 1)
        bus.tell(resolved())
        await asking
        async with content.ingest(BLOB) as ingest:
            await ingest.write(CONTENT[:1000])
            await ingest.flush()
            async with session.get(f"/v2/app/blobs/{BLOB.digest}?ns=registry.example") as answer:
                got = await answer.content.readexactly(1000)
                next(task for task in asyncio.all_tasks() if task.get_name() == f"mirror {PLACE}:1").cancel()
                await until(lambda: bus.begun == 2)
                bus.tell(resolved())
                await ingest.write(CONTENT[1000:])
                await ingest.commit()
                assert got + await answer.read() == CONTENT

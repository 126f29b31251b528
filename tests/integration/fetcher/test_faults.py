"""Registries that break off, lie, refuse and stall: what is kept, what is asked again, and what is said."""

from __future__ import annotations

import asyncio
import logging
import random
import time

import msgspec
import pytest
from aiohttp import web

from pullonce.errors import Permanent, Retryable
from schemas.oci import Descriptor, Digest
from services.fetcher.settings import RegistrySettings
from tests.integration.fetcher.conftest import Opened
from tests.support.faulty import (
    Fault,
    FaultyRegistry,
    answers,
    breaks_after,
    ignores_ranges,
    sends,
    stalls_after,
    streams,
)
from tests.support.images import Layer, digest_of, image, index, layer, tar_of

BIG = layer(tar_of({"random": random.Random(7).randbytes(3_000_000)}), "plain")
IMAGE = image([BIG])
BLOB = f"GET /v2/app/blobs/{BIG.digest}"


def _on_disk(content: object, digest: str) -> int:
    return content.ingest_path(Digest(digest)).stat().st_size  # type: ignore[attr-defined, no-any-return]


async def test_a_broken_transfer_goes_on_where_it_broke(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        registry.plan(BLOB, breaks_after(1_200_000))
        registry.plan(BLOB, breaks_after(700_000))
        await f.pull(registry.reference)
        asked = [request.headers.get("Range") for request in registry.asked(BLOB)]
        assert asked[0] is None and len(asked) == 3
        first, second = (int(str(each).removeprefix("bytes=").removesuffix("-")) for each in asked[1:])
        assert 0 < first <= 1_200_000 < second <= 1_900_000
        assert f.content.blob_path(Digest(BIG.digest)).read_bytes() == BIG.blob


async def test_an_attempt_that_failed_is_continued_by_the_next(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, breaks_after(2_000_000))
        registry.plan(BLOB, answers(503, "UNAVAILABLE", "over capacity", {"Retry-After": "7"}))
        with pytest.raises(Retryable, match="503: over capacity") as failed:
            await f.fetch(resolved, resolved.layers[0].blob)
        assert (failed.value.after, failed.value.code) == (7.0, "UNAVAILABLE")
        kept = _on_disk(f.content, BIG.digest)
        assert 0 < kept <= 2_000_000
        assert (f.progress[-1].state, f.progress[-1].done) == ("aborted", kept)
        await f.fetch(resolved, resolved.layers[0].blob)
        assert registry.asked(BLOB)[-1].headers["Range"] == f"bytes={kept}-"
        assert f.content.size(Digest(BIG.digest)) == len(BIG.blob)


@pytest.mark.parametrize(
    "fault",
    [ignores_ranges, answers(416), sends(b"x" * 10, 206), sends(b"x", 206, {"Content-Range": "bytes 2999999-3000000/*"})],
    ids=["ignored", "416", "206 without range", "another part"],
)
async def test_a_registry_without_ranges_costs_a_second_transfer_and_nothing_else(fetcher: Opened, fault: Fault) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, breaks_after(1_500_000))
        registry.plan(BLOB, fault)
        await f.fetch(resolved, resolved.layers[0].blob)
        assert f.content.blob_path(Digest(BIG.digest)).read_bytes() == BIG.blob


async def test_a_transfer_that_brings_nothing_is_given_back(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, breaks_after(0), times=2)
        with pytest.raises(Retryable, match="broke off at byte 0 of") as failed:
            await f.fetch(resolved, resolved.layers[0].blob)
        assert failed.value.code == "registry.interrupted"
        assert len(registry.asked(BLOB)) == 1


async def test_a_stalled_transfer_is_broken_off_and_continued(fetcher: Opened) -> None:
    never = asyncio.Event()
    async with FaultyRegistry(IMAGE) as registry, fetcher(settings=RegistrySettings(patience=0.3)) as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, stalls_after(1_000_000, never.wait()))
        await f.fetch(resolved, resolved.layers[0].blob)
        assert registry.asked(BLOB)[1].headers["Range"] == "bytes=1000000-"
        never.set()


async def test_patience_is_for_a_silent_registry_and_never_for_who_waits_for_a_turn(fetcher: Opened) -> None:
    first, second = BIG, layer(tar_of({"second": b"in the queue"}))
    began: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def slowly(request: web.Request, content: bytes) -> web.StreamResponse:
        """Never silent for as long as patience lasts, and as a whole three times as long."""
        began.set_result(time.monotonic())
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        for at in range(0, len(content), len(content) // 9 + 1):
            await response.write(content[at : at + len(content) // 9 + 1])
            await asyncio.sleep(0.1)
        return response

    async with (
        FaultyRegistry(image([first, second])) as registry,
        fetcher(settings=RegistrySettings(patience=0.3), at_once=1) as f,
    ):
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, slowly)
        slow = asyncio.create_task(f.fetch(resolved, resolved.layers[0].blob))
        begun = await began
        await asyncio.gather(slow, f.fetch(resolved, resolved.layers[1].blob))
        later = registry.times[registry.seen.index(registry.asked(second.digest)[0])]
        assert later - begun > 0.6, "it waited for its turn for longer than patience lasts"
        assert [len(registry.asked(each.digest)) for each in (first, second)] == [1, 1]


@pytest.mark.parametrize(
    "fault, code, message",
    [
        (sends(b"x" * len(BIG.blob)), "digest.mismatch", "has the digest sha256:"),
        (sends(BIG.blob[:-1]), "size.mismatch", f"holds {len(BIG.blob) - 1} bytes"),
        (sends(BIG.blob + b"x"), "size.mismatch", f"holds {len(BIG.blob) + 1} bytes"),
        (streams(BIG.blob + b"x"), "size.mismatch", f"more than the {len(BIG.blob)} bytes"),
        (answers(404, "BLOB_UNKNOWN", "no such blob"), "BLOB_UNKNOWN", "404: no such blob"),
        (answers(403, "DENIED", "go away"), "DENIED", "403: go away"),
        (answers(400), "registry.refused", "answers 400"),
    ],
)
async def test_a_blob_that_is_wrong_or_missing_fails_for_good(fetcher: Opened, fault: Fault, code: str, message: str) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, fault, times=1 if code == "registry.refused" else 2)
        with pytest.raises(Permanent, match=message) as failed:
            await f.fetch(resolved, resolved.layers[0].blob)
        assert failed.value.code == code
        assert failed.value.concerns == ("credential" if code == "DENIED" else "source")
        assert not f.content.has(Digest(BIG.digest))
        assert f.progress[-1].state == "aborted"
        await f.fetch(resolved, resolved.layers[0].blob)  # what was wrong does not stand in the way of what is right
        assert f.content.has(Digest(BIG.digest))


async def test_a_truncated_stream_of_unknown_length_is_continued_once_more(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, streams(BIG.blob[:2_000_000]))
        await f.fetch(resolved, resolved.layers[0].blob)
        assert registry.asked(BLOB)[1].headers["Range"] == "bytes=2000000-"


async def test_garbage_of_an_earlier_attempt_is_dropped_and_fetched_again(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        f.content.ingest_path(Digest(BIG.digest)).write_bytes(b"\0" * 1_000_000)
        with pytest.raises(Retryable, match="earlier attempt") as failed:
            await f.fetch(resolved, resolved.layers[0].blob)
        assert (failed.value.code, failed.value.after) == ("digest.mismatch", 0.0)
        await f.fetch(resolved, resolved.layers[0].blob)
        assert registry.asked(BLOB)[-1].headers.get("Range") is None
        assert f.content.has(Digest(BIG.digest))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_an_overloaded_registry_is_asked_again_later(fetcher: Opened, status: int) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        registry.plan("HEAD", answers(status, headers={"Retry-After": "100000"}))
        registry.plan("GET", answers(status, headers={"Retry-After": "100000"}))
        with pytest.raises(Retryable) as failed:
            await f.resolve(registry.reference)
        assert failed.value.after == 300.0
        assert failed.value.code == ("TOOMANYREQUESTS" if status == 429 else "registry.unavailable")


async def test_nobody_listens_or_the_name_does_not_exist(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry:
        gone = registry.reference
    async with fetcher() as f:
        for reference in (gone, "registry.invalid/app:1"):
            with pytest.raises(Retryable, match="cannot be reached") as failed:
                await f.resolve(reference)
            assert failed.value.code == "registry.unavailable"


async def test_a_registry_that_does_not_do_heads_is_asked_by_get(fetcher: Opened) -> None:
    for fault in (answers(405), answers(200), answers(404)):
        async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
            registry.plan("HEAD", fault)
            assert (await f.resolve(registry.reference)).digest == IMAGE.digest
            assert len(registry.asked("GET /v2/app/manifests/")) == 1


@pytest.mark.parametrize(
    "content, headers, code, message",
    [
        (b"{}", {}, "MANIFEST_INVALID", "refused"),
        (b"<html>", {}, "MANIFEST_INVALID", "no JSON"),
        (b'{"schemaVersion":1,"fsLayers":[]}', {}, "manifest.schema1", "rebuild the image"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}', {}, "MANIFEST_INVALID", "at once"),
        (b" " * (4 << 20) + b" {}", {}, "MANIFEST_INVALID", "longer than 4 MiB"),
        (IMAGE.content, {"Content-Type": index([]).media_type}, "MANIFEST_INVALID", "and the registry says"),
        (IMAGE.content, {"Docker-Content-Digest": digest_of(b"")}, "digest.mismatch", "something else"),
    ],
)
async def test_a_manifest_that_is_refused(
    fetcher: Opened, content: bytes, headers: dict[str, str], code: str, message: str
) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        registry.plan("HEAD", answers(405))
        registry.plan("GET", sends(content, headers=headers), times=2)
        with pytest.raises(Permanent, match=message) as failed:
            await f.resolve(registry.reference)
        assert (failed.value.code, failed.value.concerns) == (code, "source")


async def test_a_manifest_that_is_not_what_its_digest_says_is_never_stored(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        registry.plan("GET /v2/app/manifests/", sends(IMAGE.content + b" "), times=100)
        with pytest.raises(Permanent, match="something else") as failed:
            await f.resolve(f"{registry.host}/app@{IMAGE.digest}")
        assert failed.value.code == "digest.mismatch"
        assert not f.content.has(Digest(IMAGE.digest))


async def test_redirects_are_followed_without_the_secret(fetcher: Opened) -> None:
    storage_image = image([BIG])
    async with FaultyRegistry(storage_image) as storage, FaultyRegistry(IMAGE) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        target = f"http://{storage.host}/v2/app/blobs/{BIG.digest}?signature=a%2Fb%3D"
        registry.plan(BLOB, answers(307, headers={"Location": target}), times=2)
        storage.plan(BLOB, breaks_after(1_000_000))
        await f.fetch(resolved, resolved.layers[0].blob)
        assert [request.raw_path.partition("?")[2] for request in storage.seen] == ["signature=a%2Fb%3D"] * 2
        assert storage.seen[1].headers["Range"].startswith("bytes=")
        assert len(registry.asked(BLOB)) == 2, "a fresh signature for each attempt"


async def test_redirects_without_end_and_refusals_of_storage(fetcher: Opened) -> None:
    async with FaultyRegistry(IMAGE) as registry, FaultyRegistry(IMAGE) as storage, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, answers(307, headers={"Location": f"/v2/app/blobs/{BIG.digest}"}), times=11)
        with pytest.raises(Permanent, match="more than 10 times"):
            await f.fetch(resolved, resolved.layers[0].blob)
        away = f"http://localhost:{storage.host.rpartition(':')[2]}/v2/app/blobs/{BIG.digest}?secret=1"
        registry.plan(BLOB, answers(307, headers={"Location": away}))
        storage.plan(BLOB, answers(403))
        with pytest.raises(Retryable) as failed:
            await f.fetch(resolved, resolved.layers[0].blob)
        assert failed.value.code == "registry.storage" and "secret" not in str(failed.value)


@pytest.mark.parametrize(
    "location",
    [
        *("mailto:someone", "http://[", "ftp://127.0.0.1/x", "https://127.0.0.1:99999/x", "http://127.0.0.1:0/x"),
        *(f"https://{'a' * 70}.example/x", "https://xn--a/x", "https://\u00fc.example/x", "https://a..example/x"),
        *("https://host.example:\u00b2/x", "https://[::1/x", "https://[1:2]/x"),
    ],
)
async def test_redirects_to_nowhere(fetcher: Opened, location: str) -> None:
    async with FaultyRegistry(IMAGE) as registry, fetcher() as f:
        registry.plan("manifests", answers(307, headers={"Location": location}), times=2)
        with pytest.raises(Permanent) as failed:
            await f.resolve(registry.reference)
        assert failed.value.code == "registry.redirects"


async def test_a_cancelled_fetch_keeps_what_came(fetcher: Opened) -> None:
    sent, never = asyncio.Event(), asyncio.Event()

    async def stall() -> None:
        sent.set()
        await never.wait()

    async with FaultyRegistry(IMAGE) as registry, fetcher(settings=RegistrySettings(patience=30.0)) as f:
        resolved = await f.resolve(registry.reference)
        registry.plan(BLOB, stalls_after(1_500_000, stall()))
        fetch = asyncio.ensure_future(f.fetch(resolved, resolved.layers[0].blob))
        await sent.wait()
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        never.set()
        kept = _on_disk(f.content, BIG.digest)
        await f.fetch(resolved, resolved.layers[0].blob)
        assert registry.asked(BLOB)[-1].headers.get("Range") == (f"bytes={kept}-" if kept else None)


async def test_a_blob_of_no_bytes_needs_no_request(fetcher: Opened) -> None:
    empty = Layer(b"", digest_of(b""), "plain")
    async with FaultyRegistry(image([empty])) as registry, fetcher() as f:
        resolved = await f.resolve(registry.reference)
        await f.fetch(resolved, Descriptor(media_type="", digest=Digest(empty.digest), size=0))
        assert f.content.size(Digest(empty.digest)) == 0


async def test_what_a_registry_says_beside_its_answers_is_logged_once(
    fetcher: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    async with FaultyRegistry(IMAGE) as registry, FaultyRegistry(IMAGE) as storage, fetcher() as f:
        said = {"Warning": '299 - "read-only from Friday on"', "RateLimit-Limit": "100;w=60", "RateLimit-Remaining": "4;w=60"}
        registry.plan("HEAD", sends(IMAGE.content, headers={**said, "Docker-Content-Digest": IMAGE.digest}), times=2)
        target = f"http://{storage.host}/v2/app/blobs/{BIG.digest}"
        registry.plan(BLOB, answers(307, headers={"Location": target}))
        storage.plan(BLOB, sends(BIG.blob, headers={"Warning": '299 - "not for us"'}))
        with caplog.at_level(logging.WARNING):
            resolved = await f.resolve(registry.reference)
            await f.resolve(registry.reference)
            await f.fetch(resolved, resolved.layers[0].blob)
    host = registry.host
    assert [record.getMessage() for record in caplog.records] == [
        f"{host} warns: read-only from Friday on",
        f"{host} lets us pull 4 more times of 100 in 60 s; a login may have a higher limit",
    ]


async def test_a_layer_of_others_is_fetched_where_the_registry_has_it_and_explained_where_not(fetcher: Opened) -> None:
    asked: list[str] = []

    async def guard(request: web.Request) -> web.Response | None:
        asked.append(request.path)
        return None

    async with FaultyRegistry(IMAGE) as registry, FaultyRegistry(IMAGE) as elsewhere, fetcher() as f:
        elsewhere.guard = guard
        resolved = await f.resolve(registry.reference)
        foreign = msgspec.structs.replace(
            resolved.layers[0].blob,
            media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            urls=(f"http://{elsewhere.host}/layer",),
        )
        registry.plan(BLOB, answers(404, "BLOB_UNKNOWN", "not here"), times=2)
        with pytest.raises(Permanent, match=r"404: not here\. The layer is one that its publisher") as failed:
            await f.fetch(resolved, foreign)
        assert failed.value.code == "layer.foreign" and asked == []
        await f.fetch(resolved, foreign)
        assert f.content.has(Digest(BIG.digest)) and asked == []

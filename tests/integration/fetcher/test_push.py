"""Pushes: what goes where, who is shown what, what goes on after a break, and what is refused before a byte is sent."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from pullonce.errors import Permanent, Retryable
from pullonce.oci.reference import parse
from pullonce.store.images import ImageRecord
from schemas.events import Source
from schemas.oci import Descriptor, Digest
from services.fetcher.pushing import records
from services.fetcher.remote.sessions import Destination, Session
from services.fetcher.servers.hosts import Host
from tests.integration.exchange.conftest import list_image
from tests.integration.fetcher.test_auth import BASIC, PASSWORD, TokenDesk, login
from tests.support.images import Image, digest_of, image, index, layer, tar_of
from tests.support.odd_pushes import IMAGE, LARGE, PART
from tests.support.push_registry import Fault, PushRegistry, breaks_after, held_until
from tests.support.pushing import NAME, PushingStore, pushing_store
from tests.support.registry import RegistryServer

PLAIN = image([layer(tar_of({"file": b"content"}))])
PARTS = "PATCH /v2/app/blobs"


# -- who is shown what ---------------------------------------------------------------------------------------------------


async def test_a_token_to_push_is_asked_for_once_and_renewed_in_the_middle_of_a_blob(tmp_path: Path) -> None:
    desk = TokenDesk(password=PASSWORD, needs="repository:app:pull,push")
    parts = 0

    async def guard(request: web.Request) -> web.Response | None:
        nonlocal parts
        parts += request.method == "PATCH"
        if parts == 2 and request.method == "PATCH":
            desk.valid.clear()  # it has run out
        return await desk(request)

    async with (
        PushRegistry(guard=guard) as registry,
        pushing_store(tmp_path, configs=(login(tmp_path / "config.json", registry.host),)) as s,
    ):
        await s.push(f"{registry.host}/app:1")
    assert [each["scope"] for each in desk.given if each["authorization"]] == ["repository:app:pull,push"] * 2 + [
        "repository:app:pull"
    ][:0]
    assert {each["authorization"] for each in desk.given} == {BASIC}
    assert registry.has("app", IMAGE.blobs)


async def test_what_is_taken_over_needs_the_right_to_read_it_there(tmp_path: Path) -> None:
    """A registry says so by a challenge with both scopes; a token server that gives no such token is no reason to fail."""
    desk = TokenDesk(needs="repository:app:pull,push")

    async def guard(request: web.Request) -> web.Response | None:
        if "from" in request.query:
            challenge = f'Bearer realm="http://{request.host}/token",scope="repository:app:pull,push repository:other:pull"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return await desk(request)

    async with PushRegistry(guard=guard) as registry, pushing_store(tmp_path) as s:
        list_image(s.content, f"{registry.host}/other:1", IMAGE)
        await s.push(f"{registry.host}/app:1")
    assert registry.has("app", IMAGE.blobs)
    assert {each["scope"] for each in desk.given} >= {
        "repository:app:pull,push",
        "repository:app:pull,push repository:other:pull",
    }


async def test_an_upload_that_goes_on_elsewhere_is_shown_no_secret(tmp_path: Path) -> None:
    async def wants_a_password(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == BASIC:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    async with PushRegistry() as storage:
        away = PushRegistry(guard=wants_a_password, located=lambda _, path: f"http://{storage.host}{path}?signature=s%2F")
        async with away as registry, pushing_store(tmp_path, configs=(login(tmp_path / "config.json", registry.host),)) as s:
            storage.sessions = registry.sessions
            storage.located = away.located
            storage.blobs = registry.blobs
            await s.push(f"{registry.host}/app:1")
    assert registry.has("app", IMAGE.blobs)
    assert storage.seen and not any("Authorization" in headers for _, headers in storage.seen)
    assert all("signature=s%2F" in said for said, _ in storage.seen)


async def test_a_registry_that_names_itself_by_plain_http_is_asked_by_https_on(tmp_path: Path, own: ssl.SSLContext) -> None:
    async with (
        PushRegistry(tls=own, located=lambda r, path: f"http://{r.host}{path}?x=1") as registry,
        pushing_store(tmp_path) as s,
    ):
        await s.push(f"{registry.host}/app:1")
    assert registry.has("app", IMAGE.blobs)


@pytest.mark.parametrize(
    "location",
    ["https://169.254.169.254/x", "https://10.0.0.1/x", "https://127.0.0.1:1/x", "https://[::1]:1/x", "http://a.example/"],
)
async def test_an_upload_out_there_leads_nowhere_within(tmp_path: Path, location: str) -> None:
    """Nor to where nothing is encrypted. It is decided before anybody is asked."""
    to = Destination(Host("https://registry.example"), Source(registry="registry.example", repository="app"))
    async with pushing_store(tmp_path) as s:
        with pytest.raises(Permanent) as caught:
            await s.pusher.registry.uploads.status(to, Session(location))
    assert caught.value.code == "registry.redirects"


def hosts_for(tmp_path: Path, name: str, mirror: str, capabilities: str) -> Path:
    path = tmp_path / "hosts" / name.replace(":", "_").join(("", "_")) / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'server = "http://{name}"\n[host."http://{mirror}"]\ncapabilities = {capabilities}\n')
    return tmp_path / "hosts"


@pytest.mark.parametrize(("capabilities", "pushed"), [('["pull", "resolve"]', "registry"), ('["pull", "push"]', "mirror")])
async def test_a_mirror_is_pushed_to_only_where_somebody_said_so(
    tmp_path: Path,
    capabilities: str,
    pushed: str,
) -> None:
    async with PushRegistry() as registry, PushRegistry() as mirror:
        hosts = hosts_for(tmp_path, registry.host, mirror.host, capabilities)
        async with pushing_store(tmp_path, hosts=hosts) as s:
            await s.push(f"{registry.host}/app:1")
    reached = {"registry": registry, "mirror": mirror}
    assert reached.pop(pushed).has("app", IMAGE.blobs)
    assert all(not other.seen for other in reached.values())


# -- breaks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credential", ["", "another"])
async def test_an_interrupted_push_goes_on_where_it_stood(tmp_path: Path, credential: str) -> None:
    """It is somebody else's upload where it is asked for with another credential."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "another.json").write_text('{"auths": {}}')
    release, reached = asyncio.Event(), asyncio.Event()
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        registry.plan(PARTS, lets_through(1, release, reached), 10)
        first = asyncio.ensure_future(s.push(f"{registry.host}/app:1"))
        await reached.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        release.set()
        assert len(s.left()) >= 1 and all(each.stat().st_mode & 0o777 == 0o600 for each in s.left())
        registry._faults = []
        registry.seen.clear()
        before = registry.taken
        await asyncio.sleep(0)
        given = {"credential": credential} if credential else {}
        if credential:
            (tmp_path / "credentials" / "another.json").write_text(json.dumps({"auths": {registry.host: {"auth": "YWxpOnB3"}}}))
        await s.push(f"{registry.host}/app:1", **given)
        assert registry.has("app", IMAGE.blobs) and s.left() == []
        parts = [each["Content-Range"] for each in registry.asked(PARTS)]
        if credential:
            assert parts[0].startswith("0-")
        else:
            assert parts[0].startswith(f"{PART}-"), parts
            assert registry.taken - before < len(LARGE.blob)


def lets_through(count: int, release: asyncio.Event, reached: asyncio.Event) -> Fault:
    """The first requests are answered, the others wait."""
    left = count

    async def fault(registry: PushRegistry, request: web.Request) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            reached.set()
            await release.wait()

    return fault


async def test_two_pushes_of_one_image_send_it_once(tmp_path: Path) -> None:
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        await asyncio.gather(*(s.push(f"{registry.host}/app:{tag}") for tag in ("1", "2", "1")))
    assert registry.taken == sum(map(len, IMAGE.blobs.values()))
    assert registry.manifests["app", "1"] == registry.manifests["app", "2"]


async def test_a_registry_that_takes_nothing_is_broken_off(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        s.pusher.registry.uploads._patience = 0.3
        s.pusher.attempts = 1
        registry.plan(PARTS, held_until(release, asyncio.Event()), 10)
        big = image([layer(tar_of({"zeros": bytes(16_000_000)}), "plain")])
        list_image(s.content, "registry.example/big:1", big)
        config = big.document["config"]["digest"]
        registry.blobs["app", config] = big.blobs[config]  # so that the layer is all that it is asked to take
        s.pusher.part = 15_000_000
        try:
            with pytest.raises(Retryable, match="taken no byte"):
                await s.push(f"{registry.host}/app:1", "registry.example/big:1")
        finally:
            release.set()


def test_records_that_nobody_went_on_with_go(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text("{}")
    os.utime(old, (time.time() - records.KEPT - 10,) * 2)
    records.UploadRecords(tmp_path).tidy()
    assert list(tmp_path.iterdir()) == [new]


# -- what goes out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("docker", [False, True])
async def test_a_real_registry_has_what_was_pulled_byte_for_byte(
    tmp_path: Path, registry: RegistryServer, docker: bool
) -> None:
    given = image([LARGE, layer(tar_of({"z": b"zstd"}), "zstd"), layer(b"", "plain")], docker=docker)
    async with pushing_store(tmp_path, given) as s:
        status = await s.push(f"{registry.host}/{'docker' if docker else 'oci'}/app:1")
        again = await s.push(f"{registry.host}/{'docker' if docker else 'oci'}/app:1")
        found = await s.pusher.registry.manifest(source_of(status.target), "1")
    assert found == (given.media_type, given.content) and status.digest == given.digest
    assert {each.state for each in status.blobs} == {"pushed"} and {each.state for each in again.blobs} == {"there"}


def source_of(target: str) -> Source:
    named = parse(target)
    return Source(registry=named.registry, repository=named.repository)


async def test_an_index_goes_out_with_all_its_platforms_or_not_at_all(tmp_path: Path, registry: RegistryServer) -> None:
    one, other = (image([layer(tar_of({"file": name.encode()}))], platform=name) for name in ("linux/amd64", "linux/arm64"))
    both = index([one, other])
    name = "registry.example/multi:1"
    async with pushing_store(tmp_path) as s:
        list_platform(s, name, both, one)
        with pytest.raises(Permanent, match=f"linux/arm64 .*pullonce pull registry.example/multi@{other.digest}") as caught:
            await s.push(f"{registry.host}/multi:1", name, all_platforms=True)
        assert caught.value.code == "blob.missing"
        status = await s.push(f"{registry.host}/multi:amd64", name)
        assert (status.digest, status.platform) == (one.digest, "linux/amd64")
        list_platform(s, name, both, other)
        status = await s.push(f"{registry.host}/multi:1", name, all_platforms=True)
        assert (status.digest, status.platform) == (both.digest, "")
        source = source_of(status.target)
        assert await s.pusher.registry.manifest(source, "1") == (both.media_type, both.content)
        assert (await s.pusher.registry.manifest(source, other.digest))[1] == other.content


def list_platform(s: PushingStore, reference: str, whole: Image, one: Image) -> None:
    for blob in (whole.content, one.content, *one.blobs.values()):
        s.content.blob_path(Digest(digest_of(blob))).write_bytes(blob)
    manifest = Descriptor(media_type=one.media_type, digest=Digest(one.digest), size=len(one.content))
    s.content.images.record(
        ImageRecord(
            reference=reference,
            platform=one.platform,
            digest=Digest(whole.digest),
            manifest=manifest,
            image_id=Digest(one.document["config"]["digest"]),
        )
    )


@pytest.mark.parametrize("allowed", [False, True])
async def test_layers_that_may_not_be_passed_on_are_left_out(tmp_path: Path, allowed: bool) -> None:
    def change(fields: dict[str, object]) -> None:
        fields["layers"][0] |= {  # type: ignore[index]
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar", "urls": ["https://publisher.example/x"],
        }  # fmt: skip

    fields = json.loads(IMAGE.content)
    change(fields)
    given = dataclasses.replace(IMAGE, content=json.dumps(fields).encode())
    async with PushRegistry() as registry, pushing_store(tmp_path, given) as s:
        status = await s.push(f"{registry.host}/app:1", nondistributable=allowed)
    assert [each.digest for each in status.blobs if each.state == "left"] == ([] if allowed else [LARGE.digest])
    assert (("app", LARGE.digest) in registry.blobs) is allowed
    assert registry.manifests["app", "1"][1] == given.content


async def test_a_target_may_be_a_digest_and_has_to_be_the_right_one(tmp_path: Path) -> None:
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        await s.push(f"{registry.host}/app@{IMAGE.digest}")
        assert ("app", IMAGE.digest) in registry.manifests
        with pytest.raises(Permanent, match="give a tag") as caught:
            await s.push(f"{registry.host}/app:1@{PLAIN.digest}")
    assert caught.value.code == "digest.mismatch"


Harm = Callable[[Path], object]


@pytest.mark.parametrize(
    ("harm", "code", "says"),
    [
        (Path.unlink, "blob.missing", "verify --repair"),
        (lambda path: path.write_bytes(b"short"), "blob.damaged", "5 bytes instead of"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "blob.damaged", "verify --repair"),
    ],
)
async def test_what_the_store_lacks_or_has_damaged_is_said(tmp_path: Path, harm: Harm, code: str, says: str) -> None:
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        harm(s.content.blob_path(Digest(LARGE.digest)))
        with pytest.raises(Permanent, match=says) as caught:
            await s.push(f"{registry.host}/app:1")
        assert caught.value.code == code
        assert ("app", "1") not in registry.manifests and ("app", LARGE.digest) not in registry.blobs


async def test_an_image_that_is_not_there_is_said(tmp_path: Path) -> None:
    async with pushing_store(tmp_path) as s:
        for given, says in (({}, "pull it first"), ({"platform": "linux/s390x"}, "but for linux/amd64")):
            reference = NAME if given else "registry.example/nobody:1"
            with pytest.raises(Permanent, match=says) as caught:
                await s.push("127.0.0.1:1/app:1", reference, **given)
            assert caught.value.code == "image.missing"


async def test_what_is_collected_in_the_middle_is_pushed_all_the_same(tmp_path: Path) -> None:
    release, reached = asyncio.Event(), asyncio.Event()
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        registry.plan(PARTS, held_until(release, reached))
        work = asyncio.ensure_future(s.push(f"{registry.host}/app:1"))
        await reached.wait()
        for digest in IMAGE.blobs:
            s.content.discard(Digest(digest))
        release.set()
        await work
        assert registry.has("app", IMAGE.blobs)


async def test_a_break_costs_what_broke(tmp_path: Path) -> None:
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        registry.plan(PARTS, breaks_after(200_000))
        await s.push(f"{registry.host}/app:1")
    assert registry.taken <= sum(map(len, IMAGE.blobs.values())) + PART

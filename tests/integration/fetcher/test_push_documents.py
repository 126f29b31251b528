"""Pushes of what the store has of an image: indexes, those in one another, and what is given up while it is opened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pullonce.errors import Permanent
from schemas.oci import Digest
from services.fetcher.pushing.outgoing import OpenFiles
from tests.integration.fetcher.test_push import list_platform
from tests.support.images import Image, image, index, layer, tar_of
from tests.support.odd_pushes import IMAGE
from tests.support.push_registry import Fault, PushRegistry, answers, held_until
from tests.support.pushing import PushingStore, pushing_store

NAME = "registry.example/multi:1"
ONE, TWO = (image([layer(tar_of({"file": name.encode()}))], platform=name) for name in ("linux/amd64", "linux/arm64"))
CHILD, TOP = "PUT /v2/multi/manifests/sha256", "PUT /v2/multi/manifests/1"


def list_both(s: PushingStore) -> Image:
    both = index([ONE, TWO])
    for each in (ONE, TWO):
        list_platform(s, NAME, both, each)
    return both


@pytest.mark.parametrize(
    ("where", "code", "lost"),
    [
        (CHILD, "MANIFEST_BLOB_UNKNOWN", "blobs"),
        (CHILD, "BLOB_UNKNOWN", "blobs"),
        (TOP, "MANIFEST_BLOB_UNKNOWN", "manifests"),
        (TOP, "MANIFEST_UNKNOWN", "manifests"),
    ],
)
async def test_what_a_registry_has_not_after_all_is_pushed_for_all_platforms_too(
    tmp_path: Path, where: str, code: str, lost: str
) -> None:
    """It says of each blob and manifest that it is there until it is asked to list what names them."""
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        both = list_both(s)
        await s.push(f"{registry.host}/multi:0", NAME, all_platforms=True)
        shown = dict(registry.manifests), dict(registry.blobs)
        for (_, name), (_, content) in shown[0].items():
            if name in both.manifests or name == both.digest:
                registry.plan(f"HEAD /v2/multi/manifests/{name}", says(name), 1)
                del registry.manifests["multi", name]
                assert content
        if lost == "blobs":
            registry.manifests.clear()
            registry._faults.clear()
            for _, name in shown[1]:
                registry.plan(f"HEAD /v2/multi/blobs/{name}", says(name), 1)
            registry.blobs.clear()
        registry.plan(where, answers(404 if code == "MANIFEST_UNKNOWN" else 400, code, "unknown to registry"))
        await s.push(f"{registry.host}/multi:1", NAME, all_platforms=True)
        assert registry.manifests["multi", "1"][1] == both.content
        assert {name for _, name in registry.manifests} >= {ONE.digest, TWO.digest}
        assert registry.has("multi", both.blobs)


def says(digest: str) -> Fault:
    """That it has it."""
    return answers(200, headers={"Docker-Content-Digest": digest})


async def test_indexes_in_one_another_go_out_up_to_a_depth(tmp_path: Path) -> None:
    """Each names the one below twice: it is read once."""
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        below, chain = ONE, [ONE]
        for _ in range(1500):
            below = index([], more=[below.descriptor()] * 2)
            chain.append(below)
        for each in chain:
            s.content.blob_path(Digest(each.digest)).write_bytes(each.content)
        list_platform(s, NAME, chain[8], ONE)
        status = await s.push(f"{registry.host}/multi:1", NAME, all_platforms=True)
        assert status.digest == chain[8].digest and len(registry.asked(CHILD)) == 8
        list_platform(s, NAME, chain[-1], ONE)
        with pytest.raises(Permanent, match="one in another") as caught:
            await s.push(f"{registry.host}/multi:2", NAME, all_platforms=True)
    assert caught.value.code == "MANIFEST_INVALID"


async def test_a_push_that_is_given_up_while_its_files_are_opened_keeps_none(tmp_path: Path) -> None:
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        with s.content.images.hold():
            work = asyncio.ensure_future(s.push(f"{registry.host}/app:1"))
            await asyncio.sleep(0.2)
            assert not opened(s)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        assert work.cancelled()
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)
        assert not opened(s) and not registry.seen


async def test_pushes_have_no_more_files_open_than_they_may(tmp_path: Path) -> None:
    release, reached = asyncio.Event(), asyncio.Event()
    async with PushRegistry() as registry, pushing_store(tmp_path) as s:
        s.pusher.files = OpenFiles(len(IMAGE.blobs) + 1)
        registry.plan("PATCH", held_until(release, reached))
        first = asyncio.ensure_future(s.push(f"{registry.host}/app:1"))
        await reached.wait()
        with pytest.raises(Permanent, match="LimitNOFILE") as caught:
            await s.push(f"{registry.host}/app:2")
        assert caught.value.code == "push.busy" and len(opened(s)) == len(IMAGE.blobs)
        release.set()
        await first
        await s.push(f"{registry.host}/app:2")
        assert not opened(s)


def opened(s: PushingStore) -> list[str]:
    """Blobs that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return [each for each in found if any(digest.partition(":")[2] in each for digest in IMAGE.blobs)]

"""The content store on a real disk: crashes, two writers, wrong bytes, a disk that refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import digest_bytes
from pullonce.store.content import ContentStore, open_store
from pullonce.store.images import ImageRecord
from schemas.oci import ChainID, Descriptor, Digest

CONTENT = os.urandom(2_500_000)
BLOB = Descriptor(media_type="application/octet-stream", digest=digest_bytes(CONTENT), size=len(CONTENT))


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return open_store(tmp_path / "store")


async def store(content: ContentStore, *, size: int = len(CONTENT), step: int = 100_000) -> str:
    """Write what is missing of the blob, up to `size`; commit if that is all of it. Says what happened."""
    async with content.ingest(BLOB) as ingest:
        if ingest.present:
            return "present"
        start = ingest.offset
        for position in range(start, size, step):
            await ingest.write(CONTENT[position : min(position + step, size)])
        if size < len(CONTENT):
            return "left"
        await ingest.commit()
        return f"from {start}"


async def test_a_blob_is_visible_when_it_is_committed_and_not_before(content: ContentStore) -> None:
    async with content.ingest(BLOB) as ingest:
        await ingest.write(CONTENT)
        await ingest.flush()
        assert (ingest.offset, ingest.stored) == (len(CONTENT), len(CONTENT))
        assert content.ingest_path(BLOB.digest).stat().st_size == ingest.stored
        assert not content.has(BLOB.digest) and not ingest.present
        await ingest.commit()
        assert content.has(BLOB.digest) and ingest.present
    assert content.read(BLOB.digest, 10_000_000) == CONTENT
    assert content.size(BLOB.digest) == len(CONTENT)
    assert not content.ingest_path(BLOB.digest).exists()
    assert await store(content) == "present"


async def test_another_digest_algorithm(content: ContentStore) -> None:
    digest = Digest(f"sha512:{hashlib.sha512(CONTENT).hexdigest()}")
    await content.put(Descriptor(media_type="", digest=digest, size=len(CONTENT)), CONTENT)
    assert content.blob_path(digest).parent.name == "sha512"
    assert content.read(digest, 10_000_000) == CONTENT


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 1_700_001, 2_499_999])
async def test_what_an_attempt_leaves_the_next_one_continues(content: ContentStore, size: int) -> None:
    assert await store(content, size=size) == "left"
    assert await store(content) == f"from {size}"
    assert content.read(BLOB.digest, 10_000_000) == CONTENT


async def test_a_complete_leftover_needs_no_byte(content: ContentStore) -> None:
    content.ingest_path(BLOB.digest).write_bytes(CONTENT)
    assert await store(content) == f"from {len(CONTENT)}"


async def test_a_leftover_that_is_too_long_is_rubbish(content: ContentStore) -> None:
    content.ingest_path(BLOB.digest).write_bytes(CONTENT + b"x")
    assert await store(content) == "from 0"


async def test_a_damaged_leftover_costs_one_more_attempt(content: ContentStore) -> None:
    content.ingest_path(BLOB.digest).write_bytes(bytes(1000))
    with pytest.raises(Retryable) as failed:
        await store(content)
    assert (failed.value.code, failed.value.after) == ("digest.mismatch", 0.0)
    assert await store(content) == "from 0"


@pytest.mark.parametrize(
    "sent, code",
    [
        (CONTENT[:-1], "size.mismatch"),
        (CONTENT + b"x", "size.mismatch"),
        (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), "digest.mismatch"),
    ],
    ids=["short", "long", "wrong"],
)
async def test_wrong_bytes_never_become_visible(content: ContentStore, sent: bytes, code: str) -> None:
    with pytest.raises(Permanent) as failed:
        async with content.ingest(BLOB) as ingest:
            await ingest.write(sent)
            await ingest.commit()
    assert (failed.value.code, failed.value.concerns) == (code, "source")
    assert not content.has(BLOB.digest)
    await store(content)
    assert content.has(BLOB.digest)


async def test_writers_in_one_process_take_turns(content: ContentStore) -> None:
    outcomes = await asyncio.gather(*(store(content) for _ in range(50)))
    assert sorted(outcomes) == ["from 0"] + ["present"] * 49


async def test_a_waiting_writer_may_leave(content: ContentStore) -> None:
    async with content.ingest(BLOB) as ingest:
        waiting = [asyncio.ensure_future(store(content)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in waiting[:4]:
            task.cancel()
        await asyncio.gather(*waiting[:4], return_exceptions=True)
        await ingest.write(CONTENT)
        await ingest.commit()
    assert await waiting[4] == "present"
    async with content.ingest(BLOB) as ingest:  # nobody who left still holds the lock
        assert ingest.present


async def test_a_writer_may_be_cancelled_at_any_moment(content: ContentStore) -> None:
    for turns in range(60):
        attempt = asyncio.ensure_future(store(content, step=300_000))
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        if content.has(BLOB.digest):
            assert content.read(BLOB.digest, 10_000_000) == CONTENT
            content.discard(BLOB.digest)
    await store(content)
    assert content.read(BLOB.digest, 10_000_000) == CONTENT


def small(count: int) -> list[tuple[Descriptor, bytes]]:
    """Blobs that nobody need follow."""
    contents = [b"%d " % number + os.urandom(500) for number in range(count)]
    return [(Descriptor(media_type="", digest=digest_bytes(each), size=len(each)), each) for each in contents]


async def bring(content: ContentStore, blob: Descriptor, sent: bytes) -> str:
    """Store a small blob; the code of what went wrong."""
    try:
        async with content.ingest(blob) as ingest:
            await ingest.write(sent)
            await ingest.commit()
    except Permanent as exc:
        return exc.code
    return ""


async def test_of_small_blobs_that_come_at_once_each_has_its_own_end(content: ContentStore) -> None:
    """They are published together: what is wrong with one is not the others' fault, and comes right by itself."""
    blobs = small(200)
    wrong = {3: b"x", 50: b"", 99: b"longer than it should be" * 100, 150: b"y"}
    codes = await asyncio.gather(
        *(
            bring(content, blob, wrong[n] * blob.size if n in (3, 150) else wrong.get(n, data))
            for n, (blob, data) in enumerate(blobs)
        )
    )
    expected = {3: "digest.mismatch", 50: "size.mismatch", 99: "size.mismatch", 150: "digest.mismatch"}
    assert {n: code for n, code in enumerate(codes) if code} == expected
    assert [content.has(blob.digest) for blob, _ in blobs] == [n not in wrong for n in range(len(blobs))]
    assert [await bring(content, *blobs[n]) for n in wrong] == [""] * len(wrong)
    assert all(content.read(blob.digest, 10_000) == data for blob, data in blobs)
    assert list(content.layout.ingest.iterdir()) == []


async def test_what_the_disk_does_not_take_is_the_fault_of_that_blob_alone(content: ContentStore) -> None:
    blobs = small(40)
    in_the_way = content.blob_path(blobs[7][0].digest)
    in_the_way.mkdir()  # no rename puts a file there
    (in_the_way / "something").touch()
    ends = await asyncio.gather(*(bring(content, *each) for each in blobs), return_exceptions=True)
    assert [n for n, end in enumerate(ends) if end != ""] == [7] and isinstance(ends[7], OSError)


async def test_a_small_blob_may_be_cancelled_at_any_moment(content: ContentStore) -> None:
    for turns in range(40):
        [(blob, data)] = small(1)
        attempt = asyncio.ensure_future(bring(content, blob, data))
        for _ in range(turns):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        async with content.ingest(blob) as ingest:  # nobody who left still holds the lock
            if not ingest.present:
                await ingest.write(data[ingest.offset :])
                await ingest.commit()
        assert content.read(blob.digest, 10_000) == data


async def test_who_is_cancelled_while_a_wrong_small_blob_is_looked_at_is_cancelled(content: ContentStore) -> None:
    [(blob, _)] = small(1)
    for _ in range(20):
        entered = asyncio.Event()

        async def write(entered: asyncio.Event = entered) -> None:
            async with content.ingest(blob) as ingest:
                await ingest.write(bytes(blob.size))
                entered.set()
                await ingest.commit()

        writing = asyncio.create_task(write())
        await entered.wait()
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert not content.has(blob.digest)
        async with content.ingest(blob) as ingest:  # nothing of it, or all of it, where he left before it was looked at
            assert ingest.offset in (0, blob.size)
            await ingest.restart()


async def test_what_came_of_a_small_blob_is_kept_and_continued(content: ContentStore) -> None:
    [(blob, data)] = small(1)
    async with content.ingest(blob) as ingest:
        await ingest.write(data[:100])
    assert content.ingest_path(blob.digest).read_bytes() == data[:100]
    async with content.ingest(blob) as ingest:
        assert ingest.offset == 100
        await ingest.write(data[100:])
        await ingest.commit()
    assert content.read(blob.digest, 10_000) == data


_WRITER = """
import asyncio, sys
from pathlib import Path
from pullonce.store.content import open_store
from schemas.oci import Descriptor, Digest

async def main():
    content = open_store(Path(sys.argv[1]))
    data = Path(sys.argv[2]).read_bytes()
    blob = Descriptor(media_type="", digest=Digest(sys.argv[3]), size=len(data))
    async with content.ingest(blob) as ingest:
        if ingest.present:
            return print("present")
        start = ingest.offset
        await ingest.write(data[start : start + int(sys.argv[4])])
        await ingest.flush()
        print("writing", start, flush=True)
        if len(sys.argv) > 5:
            sys.stdin.read()
        await ingest.write(data[ingest.offset :])
        await ingest.commit()
        print("done")

asyncio.run(main())
"""


def writer(content: ContentStore, source: Path, first: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _WRITER, str(content.root), str(source), BLOB.digest, str(first), *more]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_leaves_its_bytes_and_its_lock_to_the_next(content: ContentStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    first = writer(content, source, 1_300_000, "and wait")
    assert first.stdout is not None and first.stdout.readline() == "writing 0\n"
    second = writer(content, source, 10)
    first.kill()
    assert second.communicate(timeout=30)[0] == "writing 1300000\ndone\n"
    first.communicate()
    assert content.read(BLOB.digest, 10_000_000) == CONTENT


def test_of_many_processes_one_writes(content: ContentStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    said = [process.communicate(timeout=60)[0] for process in [writer(content, source, 10) for _ in range(6)]]
    assert sorted(said) == ["present\n"] * 5 + ["writing 0\ndone\n"]


def test_opening_again_keeps_the_incarnation_and_wiping_ends_it(tmp_path: Path) -> None:
    first = open_store(tmp_path).incarnation
    assert len(first) == 16
    assert open_store(tmp_path).incarnation == first
    assert json.loads((tmp_path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert (tmp_path / "staging").stat().st_mode & 0o777 == 0o700
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (tmp_path / "store.json").unlink()
    assert ContentStore(tmp_path).incarnation == ""
    assert open_store(tmp_path).incarnation not in ("", first)


async def test_read_checks_and_limits(content: ContentStore) -> None:
    await content.put(BLOB, CONTENT)
    with pytest.raises(Permanent) as failed:
        content.read(BLOB.digest, 100)
    assert failed.value.code == "blob.oversized"
    content.blob_path(BLOB.digest).write_bytes(b"x")
    with pytest.raises(Permanent) as failed:
        content.read(BLOB.digest, 10_000_000)
    assert failed.value.code == "blob.damaged"
    assert content.discard(BLOB.digest) and not content.discard(BLOB.digest)
    for ask in (content.size, lambda digest: content.read(digest, 1)):
        with pytest.raises(Permanent) as failed:
            ask(BLOB.digest)
        assert failed.value.code == "blob.missing"
    with pytest.raises(Permanent) as failed:
        await content.put(BLOB, b"x")
    assert failed.value.code == "digest.mismatch"
    with pytest.raises(Permanent) as failed:
        content.blob_path(Digest("sha256:../../etc/passwd"))
    assert failed.value.code == "DIGEST_INVALID"


# -- the list of images ------------------------------------------------------------------------------------------------


def record(reference: str, platform: str = "linux/amd64", digit: str = "1", *chain: str) -> ImageRecord:
    digest = Digest("sha256:" + digit * 64)
    manifest = Descriptor(media_type="application/vnd.oci.image.manifest.v1+json", digest=digest, size=7)
    chain_ids = tuple(ChainID("sha256:" + each * 64) for each in chain)
    return ImageRecord(
        reference=reference, platform=platform, digest=digest, manifest=manifest, image_id=digest, chain_ids=chain_ids
    )


def test_one_image_for_each_reference_and_platform(content: ContentStore) -> None:
    images = content.images
    assert images.all() == []
    amd, arm, other = record("x/a:1"), record("x/a:1", "linux/arm64"), record("x/b:1")
    for each in (amd, arm, other, amd):
        images.record(each)
    assert images.all() == [amd, arm, other]
    moved = record("x/a:1", digit="2")
    images.record(moved)
    assert images.named("x/a:1") == [arm, moved]
    assert images.find("x/a:1", "linux/amd64/v3") == moved
    assert images.find("x/a:1", "linux/386") is None


def test_a_pull_without_unpacking_takes_no_snapshot_off_the_list(content: ContentStore) -> None:
    unpacked = record("x/a:1", "linux/amd64", "1", "a", "b")
    content.images.record(unpacked)
    content.images.record(record("x/a:1"))
    assert content.images.all() == [unpacked]
    content.images.record(record("x/a:1", digit="2"))
    assert content.images.all() == [record("x/a:1", digit="2")]


def test_what_others_wrote_into_the_list_stays(content: ContentStore) -> None:
    path = content.root / "index.json"
    foreign = {"mediaType": "x", "digest": "sha256:" + "f" * 64, "size": 1, "annotations": {"a": "b"}}
    path.write_text(json.dumps({"schemaVersion": 2, "manifests": [foreign], "annotations": {"c": "d"}}))
    content.images.record(record("x/a:1"))
    document = json.loads(path.read_text())
    assert document["manifests"][0] == foreign and document["annotations"] == {"c": "d"}
    assert content.images.all() == [record("x/a:1")]


async def test_many_list_at_once(content: ContentStore) -> None:
    records = [record(f"x/a:{number}") for number in range(40)]
    await asyncio.gather(*(asyncio.to_thread(ContentStore(content.root).images.record, each) for each in records))
    assert sorted(each.reference for each in content.images.all()) == sorted(each.reference for each in records)


# -- a disk that refuses -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    where = tmp_path / "small"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", where], capture_output=True).returncode:
        pytest.skip("this machine allows no mounts")
    yield where
    subprocess.run(["umount", where], check=True)


async def test_a_disk_with_too_little_room_says_so_before_the_transfer(small_disk: Path) -> None:
    content = open_store(small_disk, sync=False)
    with pytest.raises(Permanent, match=rf"no space left for .*; {len(CONTENT)} bytes were needed") as failed:
        await store(content)
    assert (failed.value.code, failed.value.concerns) == ("disk.full", "key")


async def test_room_that_was_promised_is_kept(small_disk: Path) -> None:
    """Each of two blobs fits, both do not: the second one is refused before it begins, and nobody else takes the room."""
    content = open_store(small_disk, sync=False)
    first, second = CONTENT[:1_200_000], CONTENT[1:1_200_001]
    blobs = [Descriptor(media_type="", digest=digest_bytes(each), size=len(each)) for each in (first, second)]
    async with content.ingest(blobs[0]) as ingest:
        with pytest.raises(Permanent, match=r"no space left for .*; 1200000 bytes were needed") as failed:
            async with content.ingest(blobs[1]):
                pass
        assert failed.value.code == "disk.full"
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "hog").write_bytes(bytes(1_000_000))
        (small_disk / "hog").unlink()
        await ingest.write(first[:500_000])
        await ingest.flush()
        assert content.ingest_path(blobs[0].digest).stat().st_size == 500_000, "a follower sees what is there, and no more"
    assert shutil.disk_usage(small_disk).used < 700_000, "what was not used is given back"
    async with content.ingest(blobs[0]) as ingest:
        assert ingest.offset == 500_000
        await ingest.write(first[500_000:])
        await ingest.commit()
    assert content.blob_path(blobs[0].digest).read_bytes() == first
    assert shutil.disk_usage(small_disk).used < 1_300_000


async def test_a_read_only_disk(small_disk: Path) -> None:
    content = open_store(small_disk, sync=False)
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", small_disk], check=True)
    for work in (store(content), asyncio.to_thread(content.images.record, record("x/a:1"))):
        with pytest.raises(Permanent, match="read-only") as failed:
            await work
        assert (failed.value.code, failed.value.concerns) == ("disk.readonly", "key")
    with pytest.raises(Permanent, match="read-only"):
        open_store(small_disk / "another")

"""A power cut drops whatever was not synced. Nothing is announced that it could take away: the order of calls shows it.

What must hold, for a blob: its bytes are written, then synced, then it gets its name, then the name is synced, and then the
bus is told. A snapshot is announced before it is synced, but it carries the mark of this boot until then, and counts for
nothing in another one.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.client import connect
from pullonce.store.content import ContentStore
from pullonce.store.snapshots import Snapshots
from schemas.events import BlobFetched, LayerUnpacked, StoreOpened
from schemas.oci import ChainID
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_check import damage, picture, read_on, stack, trees
from tests.support.chaos_trace import Call, Trace, in_order, traced
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

LIMIT = 60
NAMES = "rename,?renameat,renameat2,link,linkat,unlink,unlinkat"
SENDS = "write,writev,sendto,sendmsg"


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory, bus_server: NatsServer) -> Iterator[Crew]:
    home = tmp_path_factory.mktemp("home") / "here"
    with Crew(home, bus_server.url, coordinator=1, fetcher=1, unpacker=1) as running:
        yield running


async def pull(crew: Crew, reference: str) -> None:
    async with connect(crew.url, patience=LIMIT) as client:
        await client.pull(reference, timeout=LIMIT)


async def test_a_blob_is_announced_when_it_and_its_name_are_on_the_disk(crew: Crew, registry: RegistryServer) -> None:
    made = picture(stack(random.Random("blobs"), 2))
    reference = registry.push("power/blobs", "latest", made)
    with traced(crew.named("fetcher")[0].pid, f"pwrite64,fsync,fdatasync,{NAMES},{SENDS}") as trace:
        await pull(crew, reference)
    for digest in made.layers:
        token = digest.replace(":", "-")
        assert in_order(*settled(trace, crew, token), trace.one(f"blob.fetched.default.{token}")), digest
    manifest = made.digest.replace(":", "-")
    assert in_order(*settled(trace, crew, manifest), trace.one("pull.resolved.default."))
    listed = trace.one("rename", "index.json")
    assert in_order(
        trace.last_before(listed, "fsync", ".index.json."),
        listed,
        trace.first_after(listed, "fsync", f"{crew.store}>"),
        trace.one("pull.recorded.default."),
    )


async def test_of_many_small_blobs_none_is_announced_before_it_is_on_the_disk(crew: Crew, registry: RegistryServer) -> None:
    """They are synced together, and one sync of the directory covers the names of all that came before it."""
    made = picture(stack(random.Random("small"), 30, size=300))
    reference = registry.push("power/small", "latest", made)
    with traced(crew.named("fetcher")[0].pid, f"pwrite64,fsync,fdatasync,{NAMES},{SENDS}") as trace:
        await pull(crew, reference)
    for digest in made.layers:
        token = digest.replace(":", "-")
        assert in_order(*settled(trace, crew, token), trace.one(f"blob.fetched.default.{token}")), digest


def settled(trace: Trace, crew: Crew, token: str) -> tuple[Call, ...]:
    """The calls that bring a blob to the disk for good: bytes, sync, name, sync of the name."""
    renamed = trace.one("rename", f"ingest/{token}", f"blobs/sha256/{token.partition('-')[2]}")
    directory = crew.store / "blobs" / "sha256"
    return (
        trace.last("pwrite64", f"ingest/{token}"),
        trace.last("fsync", f"ingest/{token}"),
        renamed,
        trace.first_after(renamed, "fsync", f"{directory}>"),
    )


async def test_a_snapshot_is_marked_until_it_is_on_the_disk(crew: Crew, registry: RegistryServer) -> None:
    tars = stack(random.Random("snapshots"), 2)
    reference = registry.push("power/snapshots", "latest", picture(tars))
    snapshots = Snapshots(crew.store)
    names = [ChainID(name) for name in trees(tars)]

    async def synced() -> bool:
        return all(snapshots.has(name) and not (snapshots.directory(name) / "unsynced").exists() for name in names)

    with traced(crew.named("unpacker")[0].pid, f"syncfs,{NAMES},{SENDS}") as trace:
        await pull(crew, reference)
        await eventually(synced)
    for name in names:
        token = name.replace(":", "-")
        marked = trace.last_before(renamed := trace.one("rename", f"snapshots/{token}"), "write", "/unsynced>")
        assert in_order(marked, renamed, trace.one(f"layer.unpacked.default.{token}"))
        unmarked = trace.one("unlink", f"{token}/unsynced")
        assert in_order(renamed, trace.last_before(unmarked, "syncfs"), unmarked)


async def test_what_was_not_synced_before_the_power_went_is_made_anew(crew: Crew, registry: RegistryServer) -> None:
    """As after a restart of the machine: the mark is of another boot, and the tree has lost what was in it."""
    tars = stack(random.Random("doubt"), 2)
    reference = registry.push("power/doubt", "latest", picture(tars))
    await pull(crew, reference)
    top = list(trees(tars))[-1]
    directory = Snapshots(crew.store).directory(ChainID(top))
    for path in (directory / "fs").rglob("small-*"):
        path.write_bytes(b"")
    (directory / "unsynced").write_text("another boot")
    assert damage(crew.store, trees(tars)) != []
    async with connect(crew.url, patience=LIMIT) as client:
        start = await client.last_sequence() + 1
        await client.pull(reference, timeout=LIMIT)
        told = [each.event for each in await read_on(client, start)]
    assert [each.chain_id for each in told if isinstance(each, LayerUnpacked) and not each.reused] == [top]
    assert not any(isinstance(each, BlobFetched) for each in told), "the blob is on the disk"
    assert damage(crew.store, trees(tars)) == []


async def test_a_growing_file_that_lost_its_end_is_found_out(crew: Crew, registry: RegistryServer) -> None:
    """A file may be longer than what reached the disk: zeros where bytes were. The digest tells, and all is fetched anew."""
    tars = stack(random.Random("zeros"), 1)
    made = picture(tars)
    reference = registry.push("power/zeros", "latest", made)
    growing = ContentStore(crew.store).ingest_path(made.layers[0])  # type: ignore[arg-type]
    growing.write_bytes(made.blobs[made.layers[0]][:100_000] + bytes(50_000))
    await pull(crew, reference)
    assert damage(crew.store, trees(tars)) == []


@pytest.mark.parametrize("how", ["its contents", "all of it"])
async def test_a_store_that_was_wiped_begins_a_new_life(crew: Crew, registry: RegistryServer, how: str) -> None:
    tars = stack(random.Random(how), 2)
    reference = registry.push("power/wiped", how.replace(" ", "-"), picture(tars))
    await pull(crew, reference)
    wipe(crew.store, everything=how == "all of it")
    async with connect(crew.url, patience=LIMIT) as client:
        start = await client.last_sequence() + 1
        await client.pull(reference, timeout=LIMIT)
        told = [each.event for each in await read_on(client, start)]
    assert any(isinstance(each, StoreOpened) for each in told), "boards forget what they believed it held"
    assert sum(isinstance(each, BlobFetched) and not each.reused for each in told) == len(tars)
    assert damage(crew.store, trees(tars)) == []
    assert crew.unforeseen() == []


def wipe(store: Path, *, everything: bool) -> None:
    if everything:
        shutil.rmtree(store)
        return
    for path in store.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()

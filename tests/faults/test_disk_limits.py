"""Disks that have bytes left and say no: a quota that is used up, inodes that are. The failure says which of them it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pullonce.store.content import ContentStore
from schemas.oci import Digest
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_disk import inodes, quota_disk, small_disk, used
from tests.support.chaos_place import MB, Place, noise
from tests.support.images import image, layer, tar_of
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

QUOTA = 24
INODES = 900


@contextmanager
def served(home: Path, disk: Path, registry: RegistryServer, server: NatsServer) -> Iterator[Place]:
    with Crew(home, server.url, coordinator=1, fetcher=2, unpacker=2) as crew:
        yield Place(crew, registry, disk)
        assert all(member.deaths == [] for member in crew.members), "no service may end because of a disk"


@pytest.fixture(scope="module")
def limited(registry: RegistryServer, bus_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A store under a quota of 24 MB, on a disk with ten times as much room."""
    home = tmp_path_factory.mktemp("quota") / "here"
    with quota_disk(home / "stores", QUOTA) as disk, served(home, disk, registry, bus_server) as found:
        yield found


@pytest.fixture
def crowded(registry: RegistryServer, tmp_path: Path) -> Iterator[Place]:
    """A store on a disk with room for some hundred files, whatever their size."""
    home = tmp_path / "here"
    server = NatsServer(tmp_path / "server").start()
    try:
        with small_disk(home / "stores", 64, inodes=INODES) as disk, served(home, disk, registry, server) as found:
            yield found
    finally:
        server.kill()


async def test_a_blob_beyond_the_quota(limited: Place) -> None:
    """The disk has room, so it is begun; what the quota has no room for is refused before its first byte is asked for."""
    made = noise("beyond", 40)
    before = used(limited.disk)
    failure = await limited.fails(limited.registry.push("quota/beyond", "latest", made))
    assert failure.code == "disk.full"
    assert "quota" in str(failure) and str(limited.crew.store) in str(failure) and " bytes were needed" in str(failure)
    assert "free" not in str(failure), "what the disk has free is not what may be used"
    assert limited.registry.counts()["GET blobs"] <= 1, "the config, and not the layer"
    assert used(limited.disk) - before < MB
    await limited.pull(limited.registry.push("quota/after-beyond", "latest", noise("after", 0.5)))


async def test_a_layer_that_expands_beyond_the_quota(limited: Place) -> None:
    made = image([layer(tar_of({"zeros": bytes(60 * MB)}))])
    failure = await limited.fails(limited.registry.push("quota/expands", "latest", made))
    assert failure.code == "disk.full" and "quota" in str(failure) and str(limited.crew.store) in str(failure)
    assert ContentStore(limited.crew.store).has(Digest(made.layers[0])), "the blob is kept"

    async def removed() -> bool:  # btrfs itself tells of the room only when it has written down that it is free
        return not list((limited.crew.store / "staging").glob("*/*/*"))

    await eventually(removed)
    for number in range(3):  # blobs and trees: three quarters of the quota
        await limited.pull(limited.registry.push("quota/after-expanding", f"{number}", noise(f"again-{number}", 3)))


async def test_a_layer_with_more_files_than_there_are_inodes(crowded: Place) -> None:
    made = image([layer(tar_of({f"file-{number}": b"x" for number in range(2 * INODES)}))])
    before = inodes(crowded.disk)
    failure = await crowded.fails(crowded.registry.push("inodes/many", "latest", made))
    assert failure.code == "disk.full"
    assert "no inodes left" in str(failure) and "df -i" in str(failure) and str(crowded.crew.store) in str(failure)
    assert made.layers[0] in str(failure)
    assert ContentStore(crowded.crew.store).has(Digest(made.layers[0])), "the blob is kept"

    async def given_back() -> bool:
        return inodes(crowded.disk) - before < 50

    await eventually(given_back)
    few = image([layer(tar_of({f"file-{number}": b"x" for number in range(INODES // 2)}))])
    await crowded.pull(crowded.registry.push("inodes/few", "latest", few))


async def test_no_inode_for_a_blob(crowded: Place) -> None:
    """Somebody else has them all: nothing of the store is to blame, and it works again as soon as there are some."""
    reference = crowded.registry.push("inodes/none", "latest", noise("none", 0.1))
    others = crowded.disk / "others"
    others.mkdir()
    try:
        while True:
            (others / f"{inodes(crowded.disk)}").touch()
    except OSError:
        pass
    failure = await crowded.fails(reference)
    assert failure.code == "disk.full" and "no inodes left" in str(failure) and str(crowded.crew.store) in str(failure)
    for path in others.iterdir():
        path.unlink()
    await crowded.pull(reference)

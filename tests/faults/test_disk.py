"""Disks that are full, read-only or forbidden: a typed failure names the place, room is given back, the services go on."""

from __future__ import annotations

import asyncio
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.errors import Permanent
from pullonce.store.disk import disk_errors
from tests.support.buses import eventually
from tests.support.chaos import Crew
from tests.support.chaos_disk import read_only, small_disk, used
from tests.support.chaos_place import MB, Place, noise
from tests.support.gate import Gate
from tests.support.images import image, layer, tar_of
from tests.support.nats_server import NatsServer
from tests.support.registry import RegistryServer

DISK = 24


@pytest.fixture(scope="module")
def place(registry: RegistryServer, bus_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A crew whose store lies on a disk of 24 MB."""
    home = tmp_path_factory.mktemp("home") / "here"
    with small_disk(home / "stores", DISK) as disk, Crew(home, bus_server.url, coordinator=1, fetcher=2, unpacker=2) as crew:
        yield Place(crew, registry, disk)
        assert all(member.deaths == [] for member in crew.members), "no service may end because of a disk"


async def test_what_cannot_fit_is_refused_before_it_is_begun(place: Place) -> None:
    """Each layer fits, all of them do not. What there is to say is known from the manifest."""
    made = noise("too-much", 10, 10, 10)
    reference = place.registry.push("disk/too-much", "latest", made)
    before = used(place.disk)
    failure = await place.fails(reference)
    assert failure.code == "disk.full"
    needed = sum(entry["size"] for entry in made.document["layers"])
    assert f"{needed} bytes were needed" in str(failure) and str(place.crew.store) in str(failure)
    assert place.registry.counts()["GET blobs"] <= 1, "the config, and none of the layers"
    assert used(place.disk) - before < 0.2 * MB, "documents and who may have them, of files of a block each"
    await place.pull(place.registry.push("disk/after-too-much", "latest", noise("after", 0.5)))


async def test_what_was_promised_to_another_pull_is_not_promised_again(place: Place) -> None:
    """Either image fits alone. Of the first nothing has come yet, and most of its layers wait for their turn."""
    first, second = noise("first", 1.2, 1.2, 1.2, 1.2, 1.2), noise("second", 5, 5, 5, 5)
    before, size = used(place.disk), sum(entry["size"] for entry in first.document["layers"])
    behind = place.registry.push("disk/first", "latest", first)
    with Gate(place.registry.host, holds=tuple(each.encode() for each in first.layers)) as gate:
        waiting = asyncio.ensure_future(place.pull(gate.reference(behind)))

        async def promised() -> bool:
            return used(place.disk) - before >= size

        await eventually(promised)
        reference = place.registry.push("disk/second", "latest", second)
        failure = await place.fails(reference)
        assert failure.code == "disk.full" and place.registry.counts()["GET blobs"] <= 1, "the config, and none of the layers"
        gate.open()
        await waiting


async def test_a_layer_that_expands_beyond_the_disk(place: Place) -> None:
    made = image([layer(tar_of({"zeros": bytes(40 * MB)}))])
    before = used(place.disk)
    failure = await place.fails(place.registry.push("disk/expands", "latest", made))
    assert failure.code == "disk.full"
    assert made.layers[0] in str(failure) or str(place.crew.store) in str(failure)

    async def given_back() -> bool:
        return used(place.disk) - before < 0.5 * MB

    await eventually(given_back)
    await place.pull(place.registry.push("disk/after-expanding", "latest", noise("after-expanding", 0.5)))


async def test_a_read_only_disk_is_said_and_works_again_when_it_does(place: Place) -> None:
    reference = place.registry.push("disk/read-only", "latest", noise("read-only", 0.5))
    with read_only(place.disk):
        failure = await place.fails(reference)
    assert failure.code == "disk.readonly" and str(place.crew.store) in str(failure)
    await place.pull(reference)


async def test_a_forbidden_directory(place: Place) -> None:
    blobs = place.crew.store / "blobs" / "sha256"
    if change("+i", blobs):
        pytest.skip("this file system has no immutable directories, and root is forbidden nothing else")
    reference = place.registry.push("disk/forbidden", "latest", noise("forbidden", 0.5))
    try:
        failure = await place.fails(reference)
    finally:
        change("-i", blobs)
    assert failure.code == "disk.denied" and str(blobs) in str(failure)
    await place.pull(reference)


def change(attribute: str, path: Path) -> int:
    """chattr(1); its exit code."""
    return subprocess.run(["chattr", attribute, path], capture_output=True, check=False).returncode


@pytest.mark.parametrize(("number", "why"), [(errno.ENOSPC, "are free"), (errno.EDQUOT, "quota")])
def test_a_quota_is_a_full_disk(tmp_path: Path, number: int, why: str) -> None:
    with pytest.raises(Permanent, match="7 bytes were needed") as failed, disk_errors(tmp_path / "x", 7):
        raise OSError(number, "refused")
    assert failed.value.code == "disk.full" and str(tmp_path / "x") in str(failed.value) and why in str(failed.value)

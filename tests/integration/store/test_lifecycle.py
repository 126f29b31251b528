"""`rm`, `pin`, `gc` and `verify` on a served home, after real pulls from a real registry."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pullonce.bus.nats.bus import connect
from pullonce.care import things
from pullonce.care.removal import Remover
from pullonce.config import BusSettings
from pullonce.oci.digest import chain_ids
from pullonce.process import discovery
from pullonce.store.content import ContentStore
from pullonce.store.holds import Hold, Holds
from pullonce.store.snapshots import Snapshots
from pullonce.store.uses import Uses
from schemas import subjects
from schemas.claims import Ordered, encode
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.orders import Order, UnpackLayer
from tests.support.chaos_check import damage, picture, stack, trees
from tests.support.command import Up, environment, pullonce
from tests.support.images import Image, digest_of, image, index, layer, tar_of
from tests.support.registry import RegistryServer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
DAY = 86_400


class World:
    """A served home, and a registry with images that share layers."""

    def __init__(self, home: Path, registry: RegistryServer) -> None:
        self.home = home
        self.registry = registry
        self.store = home / "stores" / "default"
        self.content = ContentStore(self.store)
        self.snapshots = Snapshots(self.store)
        self._dice = random.Random(7)
        self._base = stack(self._dice, 2, size=20_000)
        self.trees: dict[str, bytes] = {}
        self._number = 0

    def push(self, more: int = 1) -> tuple[str, Image, list[ChainID]]:
        """A fresh image upon the common base: its reference, itself, its snapshots bottom first."""
        self._number += 1
        tars = self._base + stack(self._dice, more, size=20_000)
        self.trees |= trees(tars)
        pushed = picture(tars)
        return self.registry.push(f"life/{self._number}", "1", pushed), pushed, list(map(ChainID, trees(tars)))

    def run(self, *arguments: str, code: int = 0) -> str:
        done = pullonce(*arguments, home=self.home)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def report(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = pullonce(*arguments, "--json", home=self.home)
        assert done.returncode == code, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def pulled(self, more: int = 1) -> tuple[str, Image, list[ChainID]]:
        pushed = self.push(more)
        self.run("pull", "-q", pushed[0])
        return pushed

    def listed(self) -> set[str]:
        return {record.reference for record in self.content.images.all()}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line)["event"] for line in self.run("events", "--json").splitlines()]

    def used(self, reference: str, days_ago: float) -> None:
        """Let an image have been pulled last some days ago."""
        when = time.time() - days_ago * DAY
        for use in Uses(self.store).all():
            if use.image.reference == reference:
                os.utime(self.store / "uses" / use.flight, (when, when))

    def clear(self) -> None:
        """Nothing is listed or pinned, nothing is there."""
        for reference in json.loads(self.run("pin", "--json")):
            self.run("unpin", reference)
        for reference in self.listed():
            self.run("rm", reference)
        self.run("gc")
        assert not list((self.store / "blobs" / "sha256").iterdir())
        assert not list((self.store / "snapshots").iterdir())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    registry = RegistryServer(tmp_path_factory.mktemp("registry")).start()
    with Up(tmp_path_factory.mktemp("up") / "home") as up:
        yield World(up.home, registry)
    registry.stop()


@pytest.fixture
def world(served: World) -> Iterator[World]:
    yield served
    served.clear()


def test_an_image_that_is_taken_off_the_list_leaves_what_others_need(world: World) -> None:
    first, one, chain = world.pulled()
    second, two, _ = world.pulled()
    assert "off the list" in world.run("rm", first)
    assert world.listed() == {second}
    assert all(world.content.has(Digest(digest)) for digest in one.layers), "rm only changes the list"
    report = world.report("gc")
    assert (report["blobs"], report["layers"]) == (3, 1)
    assert not world.content.has(Digest(one.digest)) and not world.content.has(Digest(one.layers[-1]))
    assert not world.snapshots.has(chain[-1]) and not world.snapshots.path(chain[-1]).exists()
    assert all(world.content.has(Digest(digest)) for digest in two.layers)
    assert world.report("gc")["blobs"] == 0
    lost = [event for event in world.events() if event["type"] in ("blob.lost", "layer.lost")]
    assert {one.digest, one.layers[-1], chain[-1]} <= {event.get("digest") or event.get("chain_id") for event in lost}
    world.registry.forget()
    world.run("pull", "-q", first)
    assert world.registry.counts() == {"HEAD manifests": 1, "GET manifests": 1, "GET blobs": 2}
    assert damage(world.store, {each: tar for each, tar in world.trees.items() if world.snapshots.has(ChainID(each))}) == []


def test_a_dry_run_changes_nothing(world: World) -> None:
    reference, pushed, _ = world.pulled()
    world.run("rm", reference)

    def there() -> set[Path]:
        return {path for name in ("blobs/sha256", "snapshots", "l", "staging") for path in (world.store / name).iterdir()}

    before = there()
    report = world.report("gc", "--dry-run")
    assert (report["blobs"], report["layers"]) == (len(pushed.layers) + 2, 3)
    assert "would go: 5 blobs" in world.run("gc", "--dry-run")
    assert there() == before


def test_a_pinned_image_stays(world: World) -> None:
    reference, _, _ = world.pulled()
    world.run("pin", reference)
    world.used(reference, days_ago=100)
    assert "is pinned" in world.run("rm", reference, code=1)
    assert world.report("gc", "--keep-days", "1", "--max-bytes", "0")["images"] == []
    assert world.listed() == {reference}
    assert world.run("pin") == f"{reference}\n"
    world.run("unpin", reference)
    assert "is not pinned" in world.run("unpin", reference, code=1)
    assert "pull it first" in world.run("pin", "no/such:image", code=1)


def test_images_that_nobody_pulled_for_long_go(world: World) -> None:
    (old, _, _), (new, two, _) = world.pulled(), world.pulled()
    world.used(old, days_ago=8)
    world.used(new, days_ago=6)
    report = world.report("gc", "--keep-days", "7")
    assert [line.split()[0] for line in report["images"]] == [old]
    assert world.listed() == {new} and all(world.content.has(Digest(digest)) for digest in two.layers)
    world.run("pull", "-q", "--policy", "if-not-present", new)
    assert world.report("gc", "--keep-days", "1")["images"] == [], "a pull that found everything is a use too"


def test_the_longest_unused_go_until_the_rest_is_small_enough(world: World) -> None:
    references = [world.pulled()[0] for _ in range(3)]
    for age, reference in enumerate(references):
        world.used(reference, days_ago=10 - age)
    all_three = world.report("gc", "--dry-run")["held_bytes"]
    report = world.report("gc", "--max-bytes", str(all_three - 1))
    assert [line.split()[0] for line in report["images"]] == references[:1]
    assert report["held_bytes"] == world.report("gc")["held_bytes"] < all_three
    assert world.report("gc", "--max-bytes", "20G")["images"] == []
    world.run("gc", "--max-bytes", "much", code=2)


async def leave_ordered(url: str, keys: list[str], revision: int) -> None:
    """What a coordinator leaves that dies between its order and the fact."""
    async with connect(BusSettings(url=url, name="test"), patience=20) as bus:
        for key in keys:
            entry = await bus.claims.get(key)
            claim = encode(Ordered(by="dead", revision=revision))
            await bus.claims.put(key, claim, expected=entry.revision if entry else 0, ttl=86_400)


async def send(url: str, order: Order) -> None:
    async with connect(BusSettings(url=url, name="test"), patience=20) as bus:
        await bus.orders.send(order)


async def withdraw(url: str, order: Order) -> None:
    async with connect(BusSettings(url=url, name="test"), patience=20) as bus:
        await bus.orders.withdraw(order)


def test_what_a_dead_coordinator_ordered_goes_when_the_order_is_done(world: World) -> None:
    """Its claims stay for a day. What keeps a thing from being collected is the order, not the claim."""
    reference, pushed, chain = world.pulled()
    world.run("rm", reference)
    found = discovery.served(str(world.home))
    assert found is not None
    layer_key, revision = subjects.layer_key("default", chain[-1]), 7
    keys = [layer_key, *(subjects.blob_key("default", digest) for digest in pushed.layers)]
    asyncio.run(leave_ordered(found.url, keys, revision))
    # Nobody serves another store here, so its order stays in the queue; the key is all that is looked at.
    blob = Descriptor(media_type="m", digest=Digest(chain[0]), size=1)
    order = UnpackLayer(store="nobody", chain_id=chain[-1], diff_id=DiffID(chain[0]), blob=blob, revision=revision)
    other = subjects.layer_key("nobody", chain[-1])
    asyncio.run(leave_ordered(found.url, [other], revision))
    asyncio.run(send(found.url, order))
    try:
        assert asyncio.run(claimable(found.url, "nobody", chain[-1])) is False
    finally:
        asyncio.run(withdraw(found.url, order))
    assert asyncio.run(claimable(found.url, "nobody", chain[-1])) is True
    report = world.report("gc")
    assert (report["blobs"], report["layers"], report["busy"]) == (5, 3, 0)


async def claimable(url: str, store: str, chain_id: ChainID) -> bool:
    """Whether a collector may claim a snapshot now."""
    async with connect(BusSettings(url=url, name="test"), patience=20) as bus:
        thing = things.layer(chain_id)
        async with Remover(bus, store).claimed([thing]) as hold:
            return thing in hold.things


@needs_root
def test_a_mounted_snapshot_is_not_removed(world: World, tmp_path: Path) -> None:
    reference, _, chain = world.pulled()
    target = tmp_path / "mounted"
    target.mkdir()
    world.run("mount", reference, str(target))
    try:
        world.run("rm", reference)
        report = world.report("gc")
        assert set(report["mounted"]) == set(chain) and report["layers"] == 0 and report["blobs"] == 5
        assert any(target.rglob("big"))
    finally:
        world.run("umount", str(target))
    assert world.report("gc")["layers"] == 3


def test_what_was_begun_and_left_goes_when_it_is_old(world: World) -> None:
    def growing(number: int, age: float) -> Path:
        path = world.content.ingest_path(Digest(digest_of(bytes([number]))))
        path.write_bytes(b"x" * 5000)
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    old, young, held = growing(1, DAY * 1.1), growing(2, DAY * 0.9), growing(3, DAY * 2)
    abandoned = world.store / "staging" / "unpack-0000"
    (abandoned / "1" / "snapshot" / "fs").mkdir(parents=True)
    os.utime(abandoned, (0, 0))
    with open(held) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        report = world.report("gc")
        assert (report["partial"], report["partial_bytes"], report["staging"]) == (1, 8192, 1)
        assert (old.exists(), young.exists(), held.exists(), abandoned.exists()) == (False, True, True, False)
    assert world.report("gc", "--partial-hours", "1")["partial"] == 2
    names = [path.name for path in (world.store / "staging").iterdir()]
    assert all(name.startswith("unpack-") for name in names), "what the collector itself used is gone"


def test_what_other_tools_listed_stays(world: World) -> None:
    reference, pushed, _ = world.pulled()
    document = json.loads((world.store / "index.json").read_bytes())
    document["manifests"].append(pushed.descriptor())
    (world.store / "index.json").write_text(json.dumps(document))
    world.run("rm", reference)
    report = world.report("gc")
    assert (report["blobs"], report["layers"]) == (0, 3)
    document = json.loads((world.store / "index.json").read_bytes())
    assert [entry["digest"] for entry in document["manifests"]] == [pushed.digest]
    (world.store / "index.json").write_text(json.dumps({**document, "manifests": []}))


def test_one_platform_of_an_image_goes_alone(world: World) -> None:
    layers = [layer(tar_of({f"file-{n}": bytes([n])})) for n in range(2)]
    both = index([image(layers, platform="linux/arm64"), image(layers[:1], platform="linux/amd64")], docker=True)
    reference = world.registry.push("life/both", "1", both)
    for platform in ("linux/arm64", "linux/amd64"):
        world.run("pull", "-q", reference, "--platform", platform)
    world.run("rm", reference, "--platform", "linux/arm64")
    world.run("gc")
    assert [record.platform for record in world.content.images.all()] == ["linux/amd64"]
    assert [world.content.has(Digest(each.digest)) for each in layers] == [True, False]
    assert world.content.has(Digest(both.digest)), "the index is what the reference names"
    assert "is not in the store" in world.run("rm", reference, "--platform", "linux/arm64", code=1)


def test_a_collector_that_is_killed_leaves_nothing_behind(world: World) -> None:
    reference, _, _ = world.pulled()
    world.run("rm", reference)
    command = [sys.executable, "-m", "pullonce.cli.main", "gc"]
    killed = subprocess.Popen(command, env=environment(world.home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    left, stray = world.store / "staging" / "collect-0000", world.store / "l" / ("A" * 20)
    left.mkdir()
    (left / "1").write_text("")
    os.utime(left, (0, 0))
    stray.mkdir()  # a tree whose snapshot was out of sight already
    assert world.report("gc", "--dry-run")["staging"] == 2 and stray.exists()
    assert world.report("gc")["staging"] == 2
    assert not left.exists() and not stray.exists()


def test_a_damaged_blob_is_set_aside_and_fetched_again(world: World) -> None:
    (first, one, _), (second, _, _) = world.pulled(), world.pulled()
    world.run("pin", first)
    shared = world.content.blob_path(Digest(one.layers[0]))
    spoilt = bytes([shared.read_bytes()[0] ^ 1]) + shared.read_bytes()[1:]
    shared.write_bytes(spoilt)
    report = world.report("verify", code=1)
    (found,) = report["damaged"]
    assert (found["kind"], found["name"]) == ("blob", one.layers[0]) and "has the digest" in found["why"]
    assert Path(found["moved_to"]).read_bytes() == spoilt, "nothing is thrown away"
    assert {line.split()[0] for line in report["images"]} == {first, second} and world.listed() == set()
    assert {"type": "blob.lost", "digest": one.layers[0]}.items() <= world.events()[-1].items()
    world.registry.forget()
    world.run("pull", "-q", first)
    assert world.registry.counts() == {"HEAD manifests": 1, "GET blobs": 1}
    assert world.run("pin") == f"{first}\n"
    assert [line.split()[0] for line in world.report("verify", "--repair")["repaired"]] == [second]
    assert world.listed() == {first, second}
    report = world.report("verify")
    assert (report["damaged"], report["blobs"], report["compared"], report["unchecked"]) == ([], 8, 4, {})


@pytest.mark.parametrize("how", ["content", "extra", "gone", "mode", "owner", "unreadable"])
def test_a_damaged_snapshot_is_set_aside_and_unpacked_again(world: World, how: str) -> None:
    reference, _, chain = world.pulled()
    tree = world.snapshots.path(chain[1])
    file = next(tree.rglob("small-7"))
    status = file.stat()
    match how:
        case "content":
            file.write_bytes(b"1234567")
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        case "extra":
            (tree / "extra").touch()
        case "gone":
            shutil.rmtree(tree)
        case "mode":
            file.chmod(0o777)
        case "owner":
            if os.geteuid() != 0:
                pytest.skip("only root may give a file away")
            os.chown(file, 1234, 5)
        case "unreadable":
            (world.snapshots.directory(chain[1]) / "snapshot.json").write_text("{")
    report = world.report("verify", "--repair")
    (found,) = report["damaged"]
    assert (found["kind"], found["name"]) == ("layer", chain[1]) and Path(found["moved_to"]).is_dir()
    assert [line.split()[0] for line in report["repaired"]] == [reference]
    assert damage(world.store, {each: world.trees[each] for each in chain}) == []
    assert world.report("verify")["damaged"] == []


def test_what_is_missing_is_found(world: World) -> None:
    reference, pushed, chain = world.pulled()
    world.content.blob_path(Digest(pushed.layers[1])).unlink()
    shutil.rmtree(world.snapshots.directory(chain[2]))
    report = world.report("verify", "--repair")
    assert {found["name"] for found in report["damaged"]} == {pushed.layers[1], chain[2]}
    assert [line.split()[0] for line in report["repaired"]] == [reference]
    world.content.blob_path(Digest(pushed.digest)).unlink()
    assert "run `pullonce verify --repair`" in world.run("gc", code=1), "what it needs cannot be known"
    assert [line.split()[0] for line in world.report("verify", "--repair")["repaired"]] == [reference]
    world.run("gc")


@needs_root
def test_a_damaged_snapshot_that_is_mounted_is_only_reported(world: World, tmp_path: Path) -> None:
    reference, _, chain = world.pulled()
    target = tmp_path / "mounted"
    target.mkdir()
    world.run("mount", reference, str(target))
    try:
        next(world.snapshots.path(chain[2]).rglob("small-7")).write_bytes(b"")
        report = world.report("verify", "--repair", code=1)
        assert "is mounted" in report["damaged"][0]["left"] and world.listed() == {reference}
    finally:
        world.run("umount", str(target))
    assert world.report("verify", "--repair")["repaired"]


def test_a_store_that_is_wiped_begins_a_new_life(world: World) -> None:
    reference, _, chain = world.pulled()
    before = world.content.incarnation
    for path in world.store.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    world.run("pull", "-q", reference)
    assert world.content.incarnation not in ("", before)
    assert [event["incarnation"] for event in world.events() if event["type"] == "store.opened"][
        -1
    ] == world.content.incarnation
    assert damage(world.store, {each: world.trees[each] for each in chain}) == []
    assert world.listed() == {reference}


def test_where_nothing_runs_it_is_started_for_the_time_of_the_collection(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = pullonce("gc", home=home)
    assert done.returncode == 1 and "there is no store" in done.stderr
    registry = RegistryServer(tmp_path / "registry").start()
    reference = registry.push("life/alone", "1", picture(stack(random.Random(1), 1, size=1000)))
    assert pullonce("pull", "-q", reference, home=home).returncode == 0
    registry.stop()
    assert pullonce("rm", reference, home=home).returncode == 0
    done = pullonce("gc", home=home)
    assert done.returncode == 0 and "gone: 3 blobs" in done.stdout and "starting the embedded default" in done.stderr


def test_chain_ids_of_the_helper_are_those_of_the_product(world: World) -> None:
    _, _, chain = world.push()
    diff_ids = [DiffID(digest_of(world.trees[each])) for each in chain]
    assert chain == chain_ids(diff_ids)


def test_what_was_promised_to_others_stays_until_it_is_let_go(world: World) -> None:
    """`rm`, `gc`, `verify` and `status` know a hold, of a snapshot with all below it or of a blob; a damaged one stops `gc`."""
    reference, pushed, chain = world.pulled()
    holds, blob = Holds(world.store), Digest(pushed.layers[-1])
    holds.put(Hold(holder="containerd", name="a", chain_ids=(chain[-2],)))
    holds.put(Hold(holder="podman", name="b", blobs=(blob,)))
    told = json.loads(world.run("status", "--json"))
    assert told["holds"] == {"default": {"containerd": 1, "podman": 1}} and "1 for podman" in world.run("status")
    assert f"{len(chain) - 1} of its {len(chain)} layers stay until containerd" in world.run("rm", reference)
    report = world.report("gc")
    assert report["held"] == {"containerd": len(chain) - 1, "podman": 1} and report["layers"] == 1
    assert [world.snapshots.has(each) for each in chain] == [True] * (len(chain) - 1) + [False]
    assert world.content.has(blob) and not world.content.has(Digest(pushed.layers[0]))
    assert "kept for containerd: 2 that nothing else needs" in world.run("gc")

    next(world.snapshots.path(chain[0]).rglob("small-7")).unlink()
    world.run("pull", "-q", reference)
    (found,) = [each for each in world.report("verify", "--repair")["damaged"] if each["name"] == chain[0]]
    assert found["held"] == "containerd" and world.snapshots.has(chain[0]), "and it was brought again"
    world.run("rm", reference)

    (damaged,) = world.store.glob("holds/podman/*")
    damaged.write_text("{")
    assert "cannot be read" in world.run("gc", code=1) and world.content.has(blob)
    damaged.unlink()
    assert holds.drop("containerd", "a") and not holds.drop("containerd", "a")
    assert world.report("gc")["held"] == {} and not world.snapshots.has(chain[0]) and not world.content.has(blob)


@needs_root
def test_the_layers_of_a_bundle_stay_and_are_said_to_be_its(world: World, tmp_path: Path) -> None:
    """Made by a pull of the command's own, which asks nobody again for what is there."""
    reference, pushed, chain = world.push()
    place, words = tmp_path / "bundle", ("-q", reference)
    assert "runc run" in world.run("bundle", *words, str(place), "--", "sh")
    assert world.registry.counts()["GET blobs"] == len(pushed.blobs)
    world.registry.forget()
    world.run("bundle", *words, str(tmp_path / "other"), "--", "sh")
    assert world.registry.counts() == {}
    assert "2 for bundles" in world.run("status")
    world.run("unbundle", str(tmp_path / "other"))
    assert f"{len(chain)} of its {len(chain)} layers stay until the bundle {place} lets them go" in world.run("rm", reference)
    assert f"kept for the bundle {place}: {len(chain)} that nothing else needs" in world.run("gc")
    assert [world.snapshots.has(each) for each in chain] == [True] * len(chain)
    world.run("unbundle", str(place))
    assert world.report("gc")["layers"] == len(chain)

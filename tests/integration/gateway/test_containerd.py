"""containerd with our snapshots: pulls, containers, collections, and what goes wrong in between."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from grpclib.exceptions import GRPCError

from pullonce.oci.digest import chain_ids
from schemas.oci import ChainID, DiffID
from tests.integration.gateway.conftest import Door
from tests.support.cri import Cri
from tests.support.gate import Gate
from tests.support.images import Image
from tests.support.programs import find
from tests.support.trees import differences, read_tree

CRI = "k8s.io"
"""The namespace of the CRI."""


def chain_of(pushed: Image) -> list[ChainID]:
    config = json.loads(pushed.blobs[pushed.document["config"]["digest"]])
    return chain_ids(DiffID(each) for each in config["rootfs"]["diff_ids"])


@contextmanager
def mounted(door: Door, key: str, target: Path, namespace: str = CRI) -> Iterator[Path]:
    """What a container of that snapshot would see."""
    target.mkdir(exist_ok=True)
    command = door.containerd.run("snapshots", "--snapshotter", "pullonce", "mounts", str(target), key, namespace=namespace)
    subprocess.run(command.split(), check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


async def pull(door: Door, *references: str) -> None:
    async with Cri(door.containerd.socket) as cri:
        await asyncio.gather(*(cri.pull(each) for each in references))


async def remove(door: Door, *references: str) -> None:
    async with Cri(door.containerd.socket) as cri:
        for each in references:
            await cri.remove(each)
    door.containerd.collect()


async def held(door: Door, chain_id: ChainID) -> None:
    """Wait until a layer was promised to containerd."""
    for _ in range(1000):
        if f"pullonce/{chain_id}" in door.holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{chain_id} was never promised")


async def test_twenty_pulls_of_one_image_cost_one_and_containerd_fetches_no_layer(door: Door) -> None:
    reference, pushed = door.push(5)
    async with Cri(door.containerd.socket) as cri:
        names = await asyncio.gather(*(cri.pull(reference) for _ in range(20)))
    assert len(set(names)) == 1
    ours, theirs = door.layer_requests("pullonce"), door.layer_requests("containerd")
    assert {each: ours.get(each) for each in pushed.layers} == dict.fromkeys(pushed.layers, 1)
    assert not theirs.keys() & set(pushed.layers), "the runtime fetched a layer"
    verdict = await door.verdict()
    assert verdict.extra == 0 and verdict.failed == [], "every layer was unpacked once"
    assert set(door.containerd.snapshots(CRI)) >= set(chain_of(pushed))
    assert set(door.holds()) >= {f"pullonce/{each}" for each in chain_of(pushed)}
    await remove(door, reference)


async def test_a_container_sees_what_other_tools_unpack_and_writes_apart(door: Door, tmp_path: Path) -> None:
    reference, pushed = door.push(4)
    await pull(door, reference)
    umoci, top = find("umoci", "umoci is not on PATH (Debian: apt install umoci)"), chain_of(pushed)[-1]
    door.run("pull", "-q", reference)
    theirs = tmp_path / "umoci"
    command = [umoci, "unpack", "--image", f"{door.store}:{reference}", str(theirs)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    ctr = door.containerd
    for key in ("one", "other"):
        ctr.run("snapshots", "--snapshotter", "pullonce", "prepare", key, top, namespace=CRI)
    with mounted(door, "one", tmp_path / "one") as one, mounted(door, "other", tmp_path / "other") as other:
        assert differences(read_tree(one), read_tree(theirs / "rootfs")) == []
        (one / "etc" / "number").write_text("changed")
        shutil.rmtree(one / "opaque")
        assert differences(read_tree(other), read_tree(theirs / "rootfs")) == []
    said = ctr.run("snapshots", "--snapshotter", "pullonce", "usage", "one", namespace=CRI)
    assert "one" in said and "B" in said
    for key in ("one", "other"):
        ctr.run("snapshots", "--snapshotter", "pullonce", "rm", key, namespace=CRI)
    await remove(door, reference)


async def test_containers_run_upon_our_layers(door: Door) -> None:
    """By `ctr run` and runc: of an image that the CRI pulled, twice at once, and of one that `ctr` unpacked by itself."""
    reference, _ = door.push(4)
    await pull(door, reference)
    script = "cat /etc/layer3 | head -c 4; cat /opaque/new; ls /gone; echo mine > /etc/number; cat /etc/number"
    run = ["run", "--rm", "--net-host", "--snapshotter", "pullonce"]
    started = [door.containerd.start(*run, reference, f"box{n}", "/bin/sh", "-c", script, namespace=CRI) for n in range(2)]
    said = [each.communicate(timeout=60)[0] for each in started]
    number = reference.rpartition("/")[2].partition(":")[0]
    assert said == [f"{f'{number}.3.' * 2:.4}newmine\n"] * 2
    other, pushed = door.push(2)
    door.containerd.run("images", "pull", "--plain-http", "--snapshotter", "pullonce", other)
    assert door.containerd.run(*run, other, "own", "/bin/cat", "/opaque/new") == "new"
    assert door.layer_requests("containerd").keys() >= set(pushed.layers), "this client names no layers, so it fetches them"
    door.containerd.run("images", "rm", "--sync", other)
    await remove(door, reference)
    assert not any(kind == "Active" for _, kind in door.containerd.snapshots(CRI).values())


async def test_a_pull_that_takes_long_holds_up_nobody_else(door: Door, tmp_path: Path) -> None:
    """containerd's collector, a container of another image, another pull and its statistics, while layers do not come."""
    present, _ = door.push(2)
    await pull(door, present)
    top = chain_of(_)[-1]
    slow, pushed = door.push(3)
    with Gate(door.registry.host, holds=tuple(each.encode() for each in pushed.layers)) as gate:
        waiting = asyncio.create_task(pull(door, gate.reference(slow)))
        await held(door, chain_of(pushed)[0])
        await asyncio.sleep(1.5)  # the CRI's statistics look at all snapshots every second
        await asyncio.to_thread(door.containerd.collect)
        prepare = ("snapshots", "--snapshotter", "pullonce", "prepare", "meanwhile", top)
        await asyncio.to_thread(door.containerd.run, *prepare, namespace=CRI)
        await asyncio.to_thread(door.containerd.run, *prepare[:3], "rm", "meanwhile", namespace=CRI)
        another, _ = door.push(2)
        await pull(door, another)
        assert not waiting.done(), "all that was done while the layers were held back"
        gate.open()
        await waiting
    await remove(door, gate.reference(slow), present, another)


async def test_what_containerd_refers_to_stays_and_goes_when_it_lets_go(door: Door, tmp_path: Path) -> None:
    """A container that was made and not started, and the image it was made of: `rm` and `gc` leave them whole."""
    reference, pushed = door.push(3)
    chain = chain_of(pushed)
    await pull(door, reference)
    door.containerd.run("snapshots", "--snapshotter", "pullonce", "prepare", "made", chain[-1], namespace=CRI)
    listed = [line.split()[0] for line in door.run("images").splitlines()[1:]]
    (by_digest,) = [each for each in listed if pushed.digest in each]
    assert "layers stay until containerd" in door.run("rm", by_digest)
    assert json.loads(door.run("gc", "--json"))["held"]["containerd"] >= len(chain)
    with mounted(door, "made", tmp_path / "made") as tree:
        assert (tree / "opaque" / "new").read_text() == "new"
    await pull(door, reference)
    assert all(door.snapshots.has(each) for each in chain)
    door.containerd.run("snapshots", "--snapshotter", "pullonce", "rm", "made", namespace=CRI)
    await remove(door, reference)
    assert not {f"pullonce/{each}" for each in chain} & set(door.holds())
    door.run("gc")
    assert not any(door.snapshots.has(each) for each in chain)


async def test_an_image_that_came_for_containerd_goes_off_the_list_with_it(door: Door) -> None:
    mine, pushed = door.push(2)
    door.run("pull", "-q", f"{mine.rpartition(':')[0]}@{pushed.digest}")
    theirs, other = door.push(2)
    await pull(door, mine, theirs)
    assert pushed.digest in door.run("images", "--json") and other.digest in door.run("images", "--json")
    await remove(door, mine, theirs)
    for _ in range(200):
        if other.digest not in door.run("images", "--json"):
            break
        await asyncio.sleep(0.1)
    assert other.digest not in door.run("images", "--json"), "nobody but containerd wanted it"
    assert pushed.digest in door.run("images", "--json"), "somebody had pulled it before"


@pytest.mark.parametrize("whole", [True, False], ids=["all of it", "some directories"])
async def test_a_store_that_was_wiped_is_filled_again_where_containerd_looks(door: Door, tmp_path: Path, whole: bool) -> None:
    reference, pushed = door.push(3)
    chain = chain_of(pushed)
    await pull(door, reference)
    for path in list(door.store.iterdir()) if whole else [door.store / each for each in ("snapshots", "l", "blobs", "holds")]:
        # In one step: containerd's statistics look at layers, and so have some brought again while others still go.
        path.rename(tmp_path / path.name)
    info = json.loads(door.containerd.run("snapshots", "--snapshotter", "pullonce", "info", chain[-1], namespace=CRI))
    assert info["Kind"] == "Committed" and door.snapshots.has(chain[-1])
    door.containerd.run("snapshots", "--snapshotter", "pullonce", "prepare", "again", chain[-1], namespace=CRI)
    with mounted(door, "again", tmp_path / "again") as tree:
        assert (tree / "opaque" / "new").read_text() == "new"
    door.containerd.run("snapshots", "--snapshotter", "pullonce", "rm", "again", namespace=CRI)
    await pull(door, reference)
    assert set(door.holds()) >= {f"pullonce/{chain[-1]}"}
    await remove(door, reference)


async def test_who_cancels_a_pull_withdraws_it(door: Door) -> None:
    slow, pushed = door.push(2)
    with Gate(door.registry.host, holds=tuple(each.encode() for each in pushed.layers)) as gate:
        waiting = asyncio.create_task(pull(door, gate.reference(slow)))
        await held(door, chain_of(pushed)[0])
        await asyncio.sleep(1.5)  # the statistics wait for it too by now
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        for _ in range(300):
            if not json.loads(door.run("status", "--json")).get("flights"):
                break
            await asyncio.sleep(0.1)
        status = json.loads(door.run("status", "--json"))
        assert not status.get("flights"), "nobody waits but the statistics, so nobody pulls"
        gate.open()
        await pull(door, gate.reference(slow))
        assert all(door.snapshots.has(each) for each in chain_of(pushed))
        await remove(door, gate.reference(slow))


async def test_an_image_that_pullonce_may_not_have_is_left_to_containerd(door: Door) -> None:
    """A registry that is not there for us is none for containerd either: the error is its own, at once."""
    async with Cri(door.containerd.socket) as cri:
        with pytest.raises(GRPCError, match=r"(?i)not found|refused|failed"):
            await cri.pull(f"{door.registry.host}/gate/nobody:1")

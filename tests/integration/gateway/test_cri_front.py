"""The CRI in front of containerd: images come through pullonce with the pods' credentials, and everything else goes through."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from pullonce.store.content import ContentStore
from tests.integration.fetcher.test_auth import HTPASSWD, PASSWORD
from tests.integration.gateway.conftest import Door, picture
from tests.support.command import Up
from tests.support.containerd_door import Containerd
from tests.support.cri import Cri, pod
from tests.support.gate import Gate
from tests.support.gateway import GatewayProcess
from tests.support.images import Image, image, layer
from tests.support.layers import entry, tar
from tests.support.programs import find
from tests.support.registry import RegistryServer
from tests.support.trees import differences, read_tree

NAMESPACE = "k8s.io"
MADE_BY_RUNTIMES = (b"dev", b"proc", b"sys", b"run", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"etc/mtab")
"""What a runtime makes in a container, to mount something over it."""
PULL_SECRET = {"username": "ali", "password": PASSWORD}


@dataclass
class Front:
    """A home whose gateway stands in front of a containerd that has our snapshots."""

    door: Door
    private: RegistryServer
    reference: str
    """Of the image in the private registry."""
    kept: Image
    """That image."""

    @property
    def socket(self) -> Path:
        return self.door.home / "run" / "cri.sock"

    def fetched_by_containerd(self, pushed: Image) -> set[str]:
        return self.door.layer_requests("containerd").keys() & set(pushed.layers)


def sandbox() -> Image:
    busybox = Path(find("busybox", "busybox is not on PATH (Debian: apt install busybox-static)")).read_bytes()
    content = tar(entry("bin", "dir"), entry("bin/busybox", content=busybox, mode=0o755))
    return image([layer(content)], process={"Entrypoint": ["/bin/busybox", "sleep", "999"]})


@pytest.fixture(scope="module")
def front(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    closed, kept = tmp_path_factory.mktemp("private"), picture(9000, 3)
    opened = RegistryServer(closed).start()
    opened.push("team/app", "1", kept)
    opened.stop()
    private = RegistryServer(closed, htpasswd=HTPASSWD).start()
    home, place = (Path(tempfile.mkdtemp(prefix=prefix)) for prefix in ("front-", "ctd-"))  # sockets have short paths
    pause = registry.push("pause", "1", sandbox())
    try:
        with Up(home, "--no-ledger", more={"PULLONCE_GATEWAY_CRI_BEHIND": str(place / "c.sock")}) as up:
            made = Door(home, registry, up, None)  # type: ignore[arg-type]
            made.until_served()
            with Containerd(made.socket, sandbox=pause, place=place) as made.containerd:
                yield Front(made, private, f"{private.host}/team/app:1", kept)
    finally:
        private.stop()
        shutil.rmtree(home)


def by_umoci(front: Front, reference: str, target: Path) -> Path:
    """The files of an image as umoci has them."""
    umoci = find("umoci", "umoci is not on PATH (Debian: apt install umoci)")
    command = [umoci, "unpack", "--image", f"{front.door.store}:{reference}", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target / "rootfs"


async def test_twenty_pods_pull_once_and_containerd_fetches_no_layer(front: Front) -> None:
    reference, pushed = front.door.push(5)
    async with Cri(front.socket) as cri:
        names = set(await asyncio.gather(*(cri.pull(reference) for _ in range(20))))
        assert names == {pushed.document["config"]["digest"]}
        assert front.door.layer_requests("pullonce") == dict.fromkeys([*pushed.layers, *names], 1)
        assert front.fetched_by_containerd(pushed) == set()
        verdict = await front.door.verdict()
        assert verdict.extra == 0 and verdict.failed == [] and verdict.unanswered == []
        assert reference in front.door.run("images"), "under its tag, as the pod named it"
        await cri.remove(reference)
        assert reference not in front.door.run("images"), "whoever removes it means the disk"
    front.door.containerd.collect()


async def test_a_pod_runs_upon_what_other_tools_unpack(front: Front, tmp_path: Path) -> None:
    """Made by containerd and runc, with the network of the machine; the calls of the runtime go through the door too."""
    reference, pushed = front.door.push(4)
    config = pod("one")
    async with Cri(front.socket) as cri:
        await cri.pull(reference)
        theirs = read_tree(await asyncio.to_thread(by_umoci, front, reference, tmp_path / "umoci"))
        asked = (await cri.runtime("RunPodSandbox", config=config)).pod_sandbox_id
        box = await cri.container(asked, config, reference)
        assert await cri.run(box, "/bin/cat", "/opaque/new") == b"new"
        root = front.door.containerd.place / "state" / "io.containerd.runtime.v2.task" / NAMESPACE / box / "rootfs"
        ours = read_tree(root)
        made = {path for path in ours if path.startswith(MADE_BY_RUNTIMES)} | {b"", b"etc"}  # whose times they changed
        assert (
            differences({k: v for k, v in ours.items() if k not in made}, {k: v for k, v in theirs.items() if k not in made})
            == []
        )
        await cri.run(box, "/bin/sh", "-c", "echo mine > /etc/number")
        other = await cri.container(asked, config, reference, "other")
        assert await cri.run(other, "/bin/cat", "/etc/number") != b"mine\n", "each has its own"
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            await cri.runtime(method, pod_sandbox_id=asked)
        await cri.remove(reference)
    assert front.fetched_by_containerd(pushed) == set()


async def test_twenty_containers_at_once_see_the_same_files(front: Front, tmp_path: Path) -> None:
    reference, _ = front.door.push(4)
    async with Cri(front.socket) as cri:
        await cri.pull(reference)
    root = await asyncio.to_thread(by_umoci, front, reference, tmp_path / "umoci")
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    names = " ".join(files)
    script = f"cd /; b=/bin/busybox; $b sha256sum {names}; $b stat -c '%n %u %g %a %Y' {names}; $b ls gone opaque"
    expected = await asyncio.to_thread(subprocess.check_output, ["chroot", root, "/bin/sh", "-c", script], text=True)
    assert len(expected.splitlines()) > 2 * len(files) > 6
    run = ["run", "--rm", "--net-host", "--snapshotter", "pullonce", reference]
    started = [front.door.containerd.start(*run, f"b{n}", "/bin/sh", "-c", script, namespace=NAMESPACE) for n in range(20)]
    said = {(await asyncio.to_thread(each.communicate, timeout=90))[0] for each in started}
    assert said == {expected}
    assert not any(kind == "Active" for _, kind in front.door.containerd.snapshots(NAMESPACE).values())


async def test_a_private_image_comes_with_the_pods_credentials(front: Front) -> None:
    """pullonce pulls with them; containerd is given them too, for the manifest, and finds the layers there."""
    async with Cri(front.socket) as cri:
        with pytest.raises(GRPCError) as refused:
            await cri.pull(front.reference, {"username": "ali", "password": "another"})
        assert refused.value.status != Status.OK and "another" not in str(refused.value.message)
        await asyncio.gather(*(cri.pull(front.reference, PULL_SECRET) for _ in range(5)))
        asked = [each for each in front.private.requests() if each.kind == "GET blobs" and each.status == 200]
        layers = [each.path.rpartition("/")[2] for each in asked if not each.agent.startswith("containerd")]
        assert sorted(layers) == sorted([*front.kept.layers, front.kept.document["config"]["digest"]])
        theirs = {each.path.rpartition("/")[2] for each in asked if each.agent.startswith("containerd")}
        assert not theirs & set(front.kept.layers), "the runtime fetched a layer"
        with pytest.raises(GRPCError):
            await cri.pull(front.reference)
        await cri.remove(front.reference)
    assert PASSWORD not in front.door.up.log.read_text()


async def test_everything_else_is_the_runtimes_own(front: Front) -> None:
    async with Cri(front.socket) as cri, Cri(front.door.containerd.socket) as direct:
        assert (await cri.runtime("Version")).runtime_name == "containerd"
        for method in ("Version", "Status"):
            assert await cri.runtime(method) == await direct.runtime(method)
        assert (await cri.image("ListImages")) == await direct.image("ListImages")
        for call in ("NoSuch", "StopPodSandbox"):
            failures = []
            for each in (cri, direct):
                with pytest.raises(GRPCError) as failed:
                    await each.runtime(call)
                failures.append((failed.value.status, failed.value.message))
            assert failures[0] == failures[1]


async def test_where_pullonce_cannot_pull_containerd_does_at_once(front: Front) -> None:
    """The bus of this gateway is away. The snapshots are another's, so that containerd can go on as it is."""
    reference, pushed = front.door.push(2)
    socket = front.door.home / "run" / "behind.sock"
    listeners = {"CRI": str(socket), "CRI_BEHIND": str(front.door.containerd.socket)}
    away = GatewayProcess(front.door.home, "away", listeners, url="nats://127.0.0.1:1")
    away.start("image service answers")
    try:
        async with Cri(socket) as cri:
            assert await cri.pull(reference) == pushed.document["config"]["digest"]
            with pytest.raises(GRPCError) as none:
                await cri.pull(f"{front.door.registry.host}/gate/nobody:1")
            assert "pullonce" not in str(none.value.message), "the refusal is containerd's"
            await cri.remove(reference)
        assert "the runtime tries by itself" in away.log.read_text()
    finally:
        away.stop()


async def test_a_gateway_that_is_killed_in_a_pull_costs_one_attempt(front: Front) -> None:
    """As kubelet sees it: an error, and the next attempt succeeds."""
    there, pushed = front.door.push(3)
    before = front.door.until_served()
    with Gate(front.door.registry.host) as gate:
        reference = gate.reference(there)
        async with Cri(front.socket) as cri:
            waiting = [asyncio.create_task(cri.pull(reference)) for _ in range(3)]
            while not json.loads(await asyncio.to_thread(front.door.run, "status", "--json")).get("flights"):
                assert not any(each.done() for each in waiting)
            os.kill(before, 9)
            failures = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(each, StreamTerminatedError) for each in failures), failures
        gate.open()
        await _pulled_again(front, before, reference, pushed)


async def _pulled_again(front: Front, before: int, reference: str, pushed: Image) -> None:
    front.door.until_served(but=before)
    async with Cri(front.socket) as cri:
        for attempt in range(20):  # containerd looks at the snapshotter's socket again after a second or more
            try:
                assert await cri.pull(reference) == pushed.document["config"]["digest"]
                break
            except GRPCError:
                assert attempt < 19
                await asyncio.sleep(0.5)
        assert (await cri.status(reference)).image.id == pushed.document["config"]["digest"]
        await cri.remove(reference)
    assert ContentStore(front.door.store).images.named(reference) == []
    assert json.loads(front.door.run("status", "--json")).get("flights") in (None, [])

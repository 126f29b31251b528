"""Real clients that have the gateway for a mirror: twenty at once cost the registry what one does, and ask it for nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from tests.compose.engine import Engine
from tests.integration.gateway.conftest import picture
from tests.integration.gateway.mirror_door import MirrorDoor
from tests.support.containerd_door import Containerd
from tests.support.images import Image
from tests.support.nats_server import free_port
from tests.support.programs import find
from tests.support.registry import RegistryServer

TWENTY = 20
ROOT = Path(__file__).parents[3]
_numbers = count(1)


class Clients:
    """A mirror, its registry, and the configurations that point to it.

    Attributes:
        place: files of the clients.
    """

    def __init__(self, door: MirrorDoor, place: Path) -> None:
        self.door = door
        self.place = place
        self.host = door.registry.host
        (place / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (place / "registries.conf").write_text(
            f'unqualified-search-registries = []\n[[registry]]\nprefix = "{self.host}"\nlocation = "{self.host}"\n'
            f'insecure = true\n[[registry.mirror]]\nlocation = "{door.host}/{self.host.replace(":", "_")}"\ninsecure = true\n'
        )
        hosts = place / "certs.d" / self.host
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'server = "http://{self.host}"\n[host."http://{door.host}"]\n  capabilities = ["pull", "resolve"]\n'
        )

    def push(self) -> tuple[str, Image]:
        """A fresh image: its name in the registry, and itself."""
        number = next(_numbers)
        made = picture(number, 3, 50_000)
        self.door.registry.push(f"clients/{number}", "1", made)
        return f"clients/{number}:1", made

    def check_registry(self, made: Image) -> None:
        """Whatever was asked of the registry, pullonce asked: for each document and each layer once. What the tag is, it asks
        once a second, however many ask."""
        requests = self.door.registry.requests()
        assert {request.agent.partition("/")[0] for request in requests} == {"pullonce"}
        kinds = [request.kind for request in requests]
        assert kinds.count("GET blobs") == len(made.blobs)
        assert kinds.count("GET manifests") == 1
        assert kinds.count("HEAD manifests") < TWENTY

    def run(self, *command: str, **environ: str) -> str:
        """Carry out a command; its output."""
        done = subprocess.run(
            command, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=90, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{self.door.told()[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def clients(registry: RegistryServer) -> Iterator[Clients]:
    if os.geteuid() != 0:
        pytest.skip("the clients need root")
    place = Path(tempfile.mkdtemp(prefix="mirror-"))  # sockets have short paths
    try:
        with MirrorDoor(place / "home", registry) as door:
            yield Clients(door, place)
    finally:
        shutil.rmtree(place)


def all_at_once(pull: object) -> None:
    assert callable(pull)
    with ThreadPoolExecutor(TWENTY) as pool:
        list(pool.map(pull, range(TWENTY)))


def check_files(tree: Path, number: str) -> None:
    """The files of an unpacked `picture` are those that its layers come to."""
    assert (tree / "etc" / "number").read_text() == number
    assert (tree / "etc" / "layer2").read_bytes() == f"{number}.2.".encode() * 12_500
    assert not (tree / "gone" / "file").exists() and not (tree / "opaque" / "old").exists()
    assert (tree / "opaque" / "new").read_bytes() == b"new"


def test_skopeo(clients: Clients) -> None:
    skopeo = find("skopeo", "skopeo is not on PATH (Debian: apt install skopeo)")
    name, made = clients.push()
    common = ("--policy", str(clients.place / "policy.json"), "--registries-conf", str(clients.place / "registries.conf"))

    def copy(number: int) -> None:
        target = clients.place / f"skopeo-{number}"
        clients.run(skopeo, *common, "copy", f"docker://{clients.host}/{name}", f"dir:{target}")
        for digest, content in made.blobs.items():
            assert (target / digest.partition(":")[2]).read_bytes() == content
        shutil.rmtree(target)

    all_at_once(copy)
    clients.check_registry(made)
    listed = clients.run(skopeo, *common, "list-tags", f"docker://{clients.host}/{name.partition(':')[0]}")
    assert '"1"' in listed


@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_podman_and_buildah(clients: Clients, program: str) -> None:
    binary = find(program, f"{program} is not on PATH (Debian: apt install {program})")
    name, made = clients.push()
    place = clients.place / program
    common = (binary, "--root", str(place / "root"), "--runroot", str(place / "run"), "--storage-driver", "vfs")
    policy = ("--signature-policy", str(clients.place / "policy.json"), "--tls-verify=false")
    conf = {"CONTAINERS_REGISTRIES_CONF": str(clients.place / "registries.conf"), "STORAGE_OPTS": ""}
    if program == "buildah":
        common = (*common, "--registries-conf", str(clients.place / "registries.conf"))
    clients.run(*common, "pull", "-q", *policy, f"{clients.host}/{name}", **conf)
    clients.check_registry(made)
    if program == "podman":
        tree = clients.run(*common, "image", "mount", f"{clients.host}/{name}", **conf).strip()
        try:
            check_files(Path(tree), name.partition("/")[2].partition(":")[0])
        finally:
            clients.run(*common, "image", "umount", "-a", **conf)


def test_containerd(clients: Clients) -> None:
    """Twenty at once, and one that unpacks; when the mirror is not there, it asks the registry itself."""
    with Containerd(clients.place / "none.sock") as containerd:
        hosts = ("--hosts-dir", str(clients.place / "certs.d"))
        name, made = clients.push()
        reference = f"{clients.host}/{name}"

        def fetch(number: int) -> None:
            # In a namespace each: within one, containerd of that version lets all but one sleep, for longer and longer.
            containerd.run("content", "fetch", *hosts, reference, namespace=f"n{number}")

        all_at_once(fetch)
        clients.check_registry(made)
        containerd.run("images", "pull", "--snapshotter", "native", *hosts, reference)
        clients.check_registry(made)
        tree = clients.place / "containerd"
        tree.mkdir()
        containerd.run("images", "mount", "--snapshotter", "native", reference, str(tree))
        try:
            check_files(tree, name.partition("/")[2].partition(":")[0])
        finally:
            containerd.run("images", "unmount", str(tree))
        name, made = clients.push()
        (clients.place / "certs.d" / clients.host / "hosts.toml").write_text(
            f'server = "http://{clients.host}"\n[host."http://127.0.0.1:{free_port()}"]\n  capabilities = ["pull", "resolve"]\n'
        )
        containerd.run("content", "fetch", *hosts, f"{clients.host}/{name}")
        assert {request.agent.partition("/")[0] for request in clients.door.registry.requests()} == {"containerd"}


def test_docker(registry: RegistryServer) -> None:
    """It mirrors docker.io only, here a registry on loopback, and has no network but a way to the mirror's socket."""
    find("dockerd", "dockerd is not on PATH (Debian: apt install docker.io)", path=f"{os.environ.get('PATH')}:/usr/sbin")
    place = Path(tempfile.mkdtemp(prefix="mirror-"))
    port = free_port()
    socket = place / "mirror.sock"
    ready = place / "forwarding"
    forward = (
        f"ip link set lo up; cd {ROOT}; {sys.executable} -m tests.support.forwarder {port} {socket} {ready} & "
        f'until [ -e {ready} ]; do sleep 0.05; done; exec "$@"'
    )
    try:
        with MirrorDoor(place / "home", registry, PULLONCE_GATEWAY_MIRROR=f"unix://{socket}") as door:
            hub = door.home / "hosts" / "docker.io"
            hub.mkdir(parents=True)
            (hub / "hosts.toml").write_text(f'server = "http://{registry.host}"\n')
            clients = Clients(door, place)
            name, made = clients.push()
            engine = Engine(
                "--registry-mirror", f"http://127.0.0.1:{port}", "--storage-driver", "vfs",
                within=("unshare", "--net", "--", "sh", "-c", forward, "sh"),
                needs=("dockerd", "containerd", "docker", "unshare"),
            )  # fmt: skip
            with engine:
                all_at_once(lambda _: engine.docker("pull", "-q", name))
                clients.check_registry(made)
                container = engine.docker("create", name, "/bin/true").strip()
                archive = place / "files.tar"
                engine.docker("export", "-o", str(archive), container)
                with tarfile.open(archive) as tar:
                    tar.extractall(place / "tree", members=[each for each in tar if each.isreg()], filter="data")
                check_files(place / "tree", name.partition("/")[2].partition(":")[0])
    finally:
        shutil.rmtree(place)

"""The gateway dies at every step of its snapshot service, and the bus goes away: containerd gets there all the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from grpclib.exceptions import GRPCError

from pullonce.failpoints import GATEWAY_STEPS
from tests.integration.gateway.conftest import Door
from tests.integration.gateway.test_calls import Caller
from tests.integration.gateway.test_containerd import chain_of, pull, remove
from tests.support.command import Up, environment
from tests.support.containerd_door import Containerd
from tests.support.images import Image
from tests.support.nats_server import NatsServer
from tests.support.programs import die_with_parent
from tests.support.registry import RegistryServer

KILLED = -9
LIMIT = 30.0
NAMESPACE = "k8s.io"


class Gateway:
    """One gateway process after another, on a socket that containerd knows."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.armed = home / "armed"
        self.socket = home / "run" / "snapshots.sock"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def arm(self, step: str) -> None:
        """Have it die when it comes to a step."""
        (self.armed / step).touch()

    def start(self, told: str = "the bus is there") -> None:
        """Start one, and wait until it has told something."""
        self.armed.mkdir(exist_ok=True)
        environ = environment(self.home, self.url) | {"PULLONCE_FAILPOINTS": str(self.armed), "PULLONCE_NATS_SETUP": "no"}
        log = (self.home / "gateway.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.gateway"], env=environ, stdin=subprocess.DEVNULL, stderr=log,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        log.close()
        self.wait(told)

    def wait(self, told: str) -> None:
        """Wait until it tells something."""
        until = time.monotonic() + LIMIT
        while told not in (self.home / "gateway.log").read_text():
            assert time.monotonic() < until, (self.home / "gateway.log").read_text()
            time.sleep(0.02)

    def died(self) -> bool:
        """Whether it died, as it was to."""
        assert self._process is not None
        return self._process.poll() == KILLED

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            assert self._process.wait(LIMIT) == 0


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    server = RegistryServer(tmp_path_factory.mktemp("registry")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    made = Path(tempfile.mkdtemp(prefix="door-"))  # sockets have short paths
    yield made
    shutil.rmtree(made)


async def repeated(gateway: Gateway, work: Callable[[], Awaitable[None]]) -> None:
    """Do something; once more where the gateway died of it, as soon as containerd tries its socket again."""
    for _ in range(100):
        try:
            await work()
        except (GRPCError, AssertionError) as exc:
            # containerd waits a second and more before it tries a socket again at which nobody answered.
            if not gateway.died() and not any(each in str(exc) for each in ("unavailable", "EOF", "not found")):
                raise
            failed = True
        else:
            failed = False
        if gateway.died():
            gateway.stop()
            gateway.start()
        elif not failed:
            return
        await asyncio.sleep(0.2)
    raise AssertionError("containerd did not find the gateway again")


async def live(door: Door, gateway: Gateway, reference: str, pushed: Image) -> None:
    """An image comes, a container is made of it and becomes a layer, and everything goes again; twice what fails by a death."""
    snapshots, top = ("snapshots", "--snapshotter", "pullonce"), chain_of(pushed)[-1]
    there = lambda: door.containerd.snapshots(NAMESPACE)  # noqa: E731

    async def ctr(*words: str) -> None:
        await asyncio.to_thread(door.containerd.run, *snapshots, *words, namespace=NAMESPACE)

    async def prepare() -> None:
        if "box" not in there():
            await ctr("prepare", "box", top)

    async def commit() -> None:
        if "made" in there():
            return
        try:
            await ctr("commit", "made", "box")
        except AssertionError as exc:
            if "not found" in str(exc).partition("\n")[0]:
                # It was a layer for us and not for containerd, whose puller would remove it and begin anew.
                await ctr("rm", "box")
                await prepare()
            raise

    async def drop() -> None:
        for name in ("made", "box"):
            if name in there():
                await ctr("rm", name)
        await asyncio.to_thread(door.containerd.collect)

    for work in (lambda: pull(door, reference), prepare, commit, drop, lambda: remove(door, reference), drop):
        await repeated(gateway, work)


async def removed_next(door: Door, name: str) -> None:
    """A collection that met a dead socket came to nothing; containerd tries again when it has removed another snapshot."""
    for word in ("prepare", "rm"):
        await asyncio.to_thread(door.containerd.run, "snapshots", "--snapshotter", "pullonce", word, name)
    await asyncio.to_thread(door.containerd.collect)


async def test_it_may_die_at_every_step(home: Path, registry: RegistryServer) -> None:
    gateway = Gateway(home)
    with Up(home, "--no-ledger", "--no-gateway") as up:
        gateway.url = up.url
        gateway.start()
        with Containerd(gateway.socket, statistics=3600) as containerd:
            door = Door(home, registry, up, containerd)
            for step in GATEWAY_STEPS:
                gateway.arm(step)
                reference, pushed = door.push(2)
                await live(door, gateway, reference, pushed)
                assert not (gateway.armed / step).exists(), f"{step} was never reached"
                caller = Caller(gateway.socket)
                for number in range(10):
                    if not await caller.names():
                        break
                    await repeated(gateway, partial(removed_next, door, f"{step}.{number}"))
                assert await caller.names() == set(), f"after {step} something is left"
                await caller.call("Cleanup")
                caller.close()
                place = home / "gateway" / "default"
                assert (
                    door.holds() == [] and not list((place / "snapshots").iterdir()) and not list((place / "trash").iterdir())
                )
                ours = door.layer_requests("pullonce")
                assert {ours.get(each) for each in pushed.layers} == {1}, f"{step}: what was fetched is not fetched again"
                assert not door.layer_requests("containerd").keys() & set(pushed.layers)
        gateway.stop()


async def test_without_a_bus_containerd_pulls_by_itself_and_containers_go_on(
    home: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    """The bus is away from the start, comes, and goes again, while one gateway and one containerd stay."""
    gateway, server = Gateway(home), NatsServer(tmp_path / "nats")
    gateway.url = server.url
    gateway.start("containerd's snapshot service answers")
    with Containerd(gateway.socket, statistics=3600) as containerd:
        door = Door(home, registry, None, containerd)  # type: ignore[arg-type]
        first, alone = door.push(2)
        await pull(door, first)
        assert door.layer_requests("containerd").keys() >= set(alone.layers), "nobody else could"
        server.start()
        with Up(home, "--no-ledger", "--no-gateway", "--nats-url", server.url):
            gateway.wait("the bus is there")
            second, shared = door.push(2)
            await pull(door, second)
            assert not door.layer_requests("containerd").keys() & set(shared.layers)
        server.kill()
        third, alone = door.push(2)
        await pull(door, third)
        assert door.layer_requests("containerd").keys() >= set(alone.layers), "the bus had gone"
        run = ("run", "--rm", "--net-host", "--snapshotter", "pullonce")
        for reference in (first, second, third):
            said = await asyncio.to_thread(
                containerd.run, *run, reference, "box", "/bin/cat", "/opaque/new", namespace=NAMESPACE
            )
            assert said == "new", "containers are made of what is there, whoever brought it"
    gateway.stop()

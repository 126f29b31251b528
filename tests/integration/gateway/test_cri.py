"""The CRI's image service alone: what kubelet and crictl ask of it, and what they are told."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from schemas.events import PullCancelled, PullFailed, PullRequested
from tests.integration.fetcher.test_auth import HTPASSWD, PASSWORD
from tests.support.chaos_check import judge, read_log
from tests.support.command import Up, belonging_to, pullonce
from tests.support.cri import Cri
from tests.support.gate import Gate
from tests.support.gateway import GatewayProcess
from tests.support.images import Image, digest_of, image, layer, tar_of
from tests.support.registry import RegistryServer

_numbers = count(1)
TALKATIVE = {"PULLONCE_LOG_LEVEL": "debug"}
"""So that what the libraries tell is looked at for secrets, too."""
BASIC = base64.b64encode(f"ali:{PASSWORD}".encode()).decode()


class Alone:
    """A home with its services, and an image service that answers alone."""

    def __init__(self, home: Path, registry: RegistryServer, private: RegistryServer, up: Up) -> None:
        self.home = home
        self.registry = registry
        self.private = private
        self.up = up
        self.store = home / "stores" / "default"
        self.socket = home / "run" / "alone.sock"
        self.gateway = GatewayProcess(home, "alone", {"CRI": str(self.socket)}, url=up.url, more=TALKATIVE)

    def push(self, layers: int = 2, *, tags: tuple[str, ...] = ("1",), user: str = "") -> tuple[str, Image]:
        """A fresh image: its reference, by its first tag, and itself."""
        made = picture(layers, user=user)
        repository = f"cri/{next(_numbers)}"
        references = [self.registry.push(repository, tag, made) for tag in tags]
        return references[0], made

    def run(self, *arguments: str) -> str:
        done = pullonce(*arguments, home=self.home)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def picture(layers: int, *, user: str = "", process: dict[str, Any] | None = None) -> Image:
    number = next(_numbers)
    tars = [tar_of({f"file{depth}": f"{number}.{depth}".encode() * 500}) for depth in range(layers)]
    return image([layer(each) for each in tars], process={"User": user} if user else process or {})


def id_of(pushed: Image) -> str:
    return str(pushed.document["config"]["digest"])


def told(error: pytest.ExceptionInfo[GRPCError]) -> str:
    return str(error.value.message)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    registry = RegistryServer(tmp_path_factory.mktemp("registry")).start()
    closed = tmp_path_factory.mktemp("private")
    opened = RegistryServer(closed).start()
    opened.push("team/app", "1", picture(2))
    opened.stop()
    private = RegistryServer(closed, htpasswd=HTPASSWD).start()
    home = Path(tempfile.mkdtemp(prefix="cri-"))  # sockets have short paths
    try:
        with Up(home, "--no-ledger", "--no-gateway", more=TALKATIVE) as up:
            made = Alone(home, registry, private, up)
            with made.gateway:
                yield made
    finally:
        shutil.rmtree(home)
        registry.stop()
        private.stop()


async def test_twenty_pulls_cost_one(alone: Alone) -> None:
    reference, pushed = alone.push(4)
    async with Cri(alone.socket) as cri:
        names = await asyncio.gather(*(cri.pull(reference) for _ in range(20)))
    assert set(names) == {id_of(pushed)}
    counts = alone.registry.counts()
    assert counts["GET manifests"] == 1 and counts["GET blobs"] == 1 + len(pushed.layers)
    verdict = judge(await read_log(alone.up.url))
    assert verdict.extra == 0 and verdict.failed == [] and verdict.unanswered == []


async def test_an_image_is_found_by_all_its_names(alone: Alone) -> None:
    reference, pushed = alone.push(3, tags=("latest",))
    repository = reference.removesuffix(":latest")
    async with Cri(alone.socket) as cri:
        identity = await cri.pull(repository)
        digits = identity.removeprefix("sha256:")
        names = [reference, repository, identity, digits, digits[:12], f"{repository}@{pushed.digest}"]
        for name in names:
            (listed,) = (await cri.image("ListImages", filter={"image": {"image": name}})).images
            found = (await cri.status(name)).image
            assert found == listed and found.id == identity, name
            assert [*found.repo_tags] == [reference] and [*found.repo_digests] == [f"{repository}@{pushed.digest}"]
        sizes = [len(pushed.content), *(len(blob) for blob in pushed.blobs.values())]
        assert found.size == sum(sizes) and not found.pinned
        info = {each.key: json.loads(each.value) for each in (await cri.status(reference, verbose=True)).info}["info"]
        assert info["imageSpec"] == json.loads(pushed.blobs[identity]) and info["chainID"].startswith("sha256:")
        for name in (f"{repository}:2", f"{repository}@sha256:{'0' * 64}", "0" * 64, "", "no such:name", digits[:3]):
            assert not (await cri.status(name, verbose=True)).HasField("image"), name
        assert (await cri.image("ListImages", filter={"image": {"image": f"{repository}:2"}})).images == []
        streamed = [each async for each in cri.streamed()]
        assert streamed == [*(await cri.image("ListImages")).images] and found in streamed


USERS: dict[str, tuple[int | None, str]] = {
    "": (0, ""), "1002": (1002, ""), "1003:users": (1003, ""), "www-data": (None, "www-data"),
    "www-data:users": (None, "www-data"), "99999999999999999999": (None, "99999999999999999999"),
}  # fmt: skip


async def test_whose_the_process_is(alone: Alone) -> None:
    async with Cri(alone.socket) as cri:
        for user, (number, name) in USERS.items():
            reference, _ = alone.push(1, user=user)
            await cri.pull(reference)
            found = (await cri.status(reference)).image
            assert (found.uid.value if found.HasField("uid") else None, found.username) == (number, name), user


async def test_one_image_under_many_names_goes_under_all_of_them(alone: Alone) -> None:
    reference, pushed = alone.push(2, tags=("1", "2"))
    other = alone.registry.push("cri/elsewhere", "1", pushed)
    repository = reference.removesuffix(":1")
    async with Cri(alone.socket) as cri:
        by_digest = f"{repository}@{pushed.digest}"
        assert await cri.pull(by_digest) == id_of(pushed)
        assert [*(await cri.status(by_digest)).image.repo_tags] == [], "it was pulled by no tag"
        for name in (reference, f"{repository}:2", other):
            assert await cri.pull(name) == id_of(pushed)
        found = (await cri.status(reference)).image
        assert sorted(found.repo_tags) == sorted([reference, f"{repository}:2", other])
        assert sorted(found.repo_digests) == sorted([by_digest, f"{other.removesuffix(':1')}@{pushed.digest}"])
        before = (await cri.image("ImageFsInfo")).image_filesystems[0]
        await asyncio.gather(*(cri.remove(name) for name in (reference, f"{repository}:2", other, id_of(pushed), by_digest)))
        for name in (reference, other, by_digest, id_of(pushed)):
            assert not (await cri.status(name)).HasField("image")
        await cri.remove(reference)
        after = (await cri.image("ImageFsInfo")).image_filesystems[0]
    assert after.used_bytes.value < before.used_bytes.value and after.inodes_used.value < before.inodes_used.value
    assert "gone: " in alone.run("gc") and not (alone.store / "blobs" / "sha256" / id_of(pushed)[7:]).exists()


async def test_what_images_take_is_what_lies_on_the_disk(alone: Alone) -> None:
    reference, _ = alone.push(2)
    async with Cri(alone.socket) as cri:
        await cri.pull(reference)
        alone.run("gc")
        (used,) = (await cri.image("ImageFsInfo")).image_filesystems
    blobs = [path.stat().st_size for path in (alone.store / "blobs" / "sha256").iterdir()]
    records = [json.loads(path.read_bytes()) for path in (alone.store / "snapshots").glob("*/snapshot.json")]
    assert used.used_bytes.value == sum(blobs) + sum(each.get("size", 0) for each in records)
    assert used.inodes_used.value == len(blobs) + sum(each.get("entries", 0) for each in records)
    assert used.fs_id.mountpoint == str(alone.store) and used.timestamp > 1_700_000_000_000_000_000


async def test_a_pinned_image_stays_until_it_is_let_go(alone: Alone) -> None:
    reference, _ = alone.push(1)
    async with Cri(alone.socket) as cri:
        await cri.pull(reference)
        alone.run("pin", reference)
        assert (await cri.status(reference)).image.pinned
        with pytest.raises(GRPCError) as refused:
            await cri.remove(reference)
        assert refused.value.status == Status.FAILED_PRECONDITION and "is pinned; `pullonce unpin` it first" in told(refused)
        alone.run("unpin", reference)
        await cri.remove(reference)
        assert reference not in await cri.images()


async def test_a_refusal_says_what_kubelet_shows(alone: Alone) -> None:
    host = alone.registry.host
    refusals = {
        f"{host}/cri/none:1": (Status.NOT_FOUND, "manifest unknown (MANIFEST_UNKNOWN)"),
        "Not A Reference": (Status.INVALID_ARGUMENT, "is no image reference"),
        "": (Status.INVALID_ARGUMENT, "the reference is empty"),
        f"{alone.private.host}/team/app:1": (Status.UNAUTHENTICATED, "(UNAUTHORIZED)"),
    }
    async with Cri(alone.socket) as cri:
        for name, (status, words) in refusals.items():
            with pytest.raises(GRPCError) as refused:
                await cri.pull(name)
            assert refused.value.status == status and words in told(refused), (name, refused.value)
        assert told(refused).startswith(alone.private.host)
        with pytest.raises(GRPCError) as unknown:
            await cri.runtime("NoSuch")
        assert unknown.value.status == Status.UNIMPLEMENTED and "RuntimeService/NoSuch is not served here" in told(unknown)
        with pytest.raises(GRPCError) as nameless:
            await cri.remove("")
        assert nameless.value.status == Status.INVALID_ARGUMENT


async def test_who_is_there_and_whether_it_can_work(alone: Alone) -> None:
    async with Cri(alone.socket) as cri:
        version = await cri.runtime("Version")
        assert (version.runtime_name, version.runtime_api_version) == ("pullonce", "v1")
        status = (await cri.runtime("Status")).status
        assert {each.type: each.status for each in status.conditions} == {"RuntimeReady": True, "NetworkReady": True}


FORMS = {
    "a user and a password": {"username": "ali", "password": PASSWORD},
    "as docker keeps it": {"auth": BASIC},
    "for that server": {"auth": BASIC, "server_address": "https://{host}/v2/"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_private_image_comes_with_the_pods_credentials(alone: Alone, form: dict[str, str]) -> None:
    reference = f"{alone.private.host}/team/app:1"
    async with Cri(alone.socket) as cri:
        await cri.pull(reference, {key: value.format(host=alone.private.host) for key, value in form.items()})
        await cri.remove(reference)


WRONG: dict[str, dict[str, str]] = {
    "nothing": {},
    "another password": {"username": "ali", "password": f"{PASSWORD}?"},
    "for another server": {"auth": BASIC, "server_address": "registry.example"},
    "no base64": {"auth": f"?{PASSWORD}"},
    "no pair": {"auth": base64.b64encode(PASSWORD.encode()).decode()},
}


@pytest.mark.parametrize("auth", WRONG.values(), ids=WRONG)
async def test_wrong_credentials_open_nothing_also_where_the_image_is(alone: Alone, auth: dict[str, str]) -> None:
    reference = f"{alone.private.host}/team/app:1"
    async with Cri(alone.socket) as cri:
        await cri.pull(reference, FORMS["as docker keeps it"])
        with pytest.raises(GRPCError) as refused:
            await cri.pull(reference, auth)
        expected = Status.INVALID_ARGUMENT if "auth" in auth and "server_address" not in auth else Status.UNAUTHENTICATED
        assert refused.value.status == expected and PASSWORD not in told(refused)


async def test_secrets_are_in_their_own_files_and_nowhere_else(alone: Alone) -> None:
    """Not in the log of events, nor in what the bus keeps of it, nor in what any part tells: the right ones and the wrong."""
    reference = f"{alone.private.host}/team/app:1"
    wrong = "an-0ther-pass"
    async with Cri(alone.socket) as cri:
        await cri.pull(reference, {"username": "ali", "password": PASSWORD})
        for auth in ({"username": "ali", "password": wrong}, {"identity_token": wrong}, {"registry_token": wrong}):
            with pytest.raises(GRPCError):
                await cri.pull(reference, auth)
    secrets = [each.encode() for each in (PASSWORD, BASIC, wrong, base64.b64encode(f"ali:{wrong}".encode()).decode())]
    kept = alone.store / "credentials"
    looked = [path for path in alone.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {alone.up.log, alone.gateway.log} <= set(looked) and any("nats" in path.parts for path in looked)
    having = {path for path in looked if any(each in content(path) for each in secrets)}
    assert having and {path.parent for path in having} == {kept}
    named = {each.event.credential for each in await read_log(alone.up.url) if isinstance(each.event, PullRequested)}
    assert {path.stem for path in kept.glob("client-*.json")} <= named
    shown = [content(Path(f"/proc/{pid}/{file}")) for pid in belonging_to(alone.home) for file in ("cmdline", "environ")]
    assert len(shown) > 8 and not any(each in text for each in secrets for text in shown)


def content(path: Path) -> bytes:
    """What is in a file; nothing where it has gone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


async def test_who_leaves_withdraws_and_the_last_ends_the_pull(alone: Alone) -> None:
    reference, pushed = alone.push(2)
    with Gate(alone.registry.host) as gate:
        behind = gate.reference(reference)
        async with Cri(alone.socket) as cri, Cri(alone.socket) as other:
            one = asyncio.create_task(cri.pull(behind))
            two = asyncio.create_task(other.pull(behind))
            first = await requests(alone, behind, 2)
            one.cancel()
            await cancelled(alone, first, 1)
            assert not two.done()
            two.cancel()
            await cancelled(alone, first, 2)
        gate.open()
        async with Cri(alone.socket) as cri:
            with pytest.raises((GRPCError, asyncio.TimeoutError)):
                await cri.pull(alone.push(1)[0], timeout=0.001)
            assert await cri.pull(behind) == id_of(pushed)


async def requests(alone: Alone, reference: str, number: int) -> set[int]:
    """Wait until so many have asked for an image; the sequences of their requests."""
    for _ in range(600):
        log = await read_log(alone.up.url)
        found = {each.sequence for each in log if isinstance(each.event, PullRequested) and each.event.reference == reference}
        if len(found) == number:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{reference} was not asked for {number} times")


async def cancelled(alone: Alone, requests: set[int], number: int) -> None:
    """Wait until so many of some requests were withdrawn."""
    for _ in range(600):
        log = [each.event for each in await read_log(alone.up.url)]
        if len({each.request for each in log if isinstance(each, PullCancelled)} & requests) == number:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {number} of {requests} were withdrawn")


async def test_a_gateway_that_is_killed_costs_one_attempt(alone: Alone) -> None:
    reference, pushed = alone.push(3)
    with Gate(alone.registry.host) as gate:
        behind = gate.reference(reference)
        async with Cri(alone.socket) as cri:
            waiting = asyncio.create_task(cri.pull(behind))
            await requests(alone, behind, 1)
            alone.gateway.kill()
            with pytest.raises(StreamTerminatedError):
                await waiting
        alone.gateway.start()
        gate.open()
        async with Cri(alone.socket) as cri:
            assert await cri.pull(behind) == id_of(pushed)
    log = [each.event for each in await read_log(alone.up.url)]
    assert not any(isinstance(each, PullFailed) and each.reference == behind for each in log)
    counts = {each: sum(each in request.path for request in alone.registry.requests()) for each in pushed.layers}
    assert counts == dict.fromkeys(pushed.layers, 1)


async def test_without_the_bus_it_says_what_is_there_and_that_nothing_can_be_pulled(alone: Alone) -> None:
    reference, _ = alone.push(1)
    async with Cri(alone.socket) as cri:
        await cri.pull(reference)
    socket = alone.home / "run" / "away.sock"
    away = GatewayProcess(alone.home, "away", {"CRI": str(socket)}, url="nats://127.0.0.1:1")
    away.start("image service answers")
    try:
        async with Cri(socket) as cri:
            assert reference in await cri.images()
            for call in (cri.pull(reference), cri.remove(reference)):
                with pytest.raises(GRPCError) as refused:
                    await call
                assert refused.value.status == Status.UNAVAILABLE and "the bus of pullonce does not answer" in told(refused)
            ready = {each.type: each for each in (await cri.runtime("Status")).status.conditions}["RuntimeReady"]
            assert (ready.status, ready.reason) == (False, "BusAway")
    finally:
        away.stop()


async def test_an_image_whose_documents_are_gone_is_not_there_and_comes_again(alone: Alone) -> None:
    reference, pushed = alone.push(2)
    async with Cri(alone.socket) as cri:
        await cri.pull(reference)
        (alone.store / "blobs" / "sha256" / id_of(pushed)[7:]).unlink()
        another, _ = alone.push(1)
        await cri.pull(another)  # the list changes
        assert await cri.pull(reference) == id_of(pushed)
        assert (await cri.status(reference)).image.id == id_of(pushed)
    assert digest_of((alone.store / "blobs" / "sha256" / id_of(pushed)[7:]).read_bytes()) == id_of(pushed)

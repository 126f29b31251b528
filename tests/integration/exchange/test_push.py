"""`pullonce push` as a user gives it: what is printed and drawn, what is refused, who stops when nobody waits any more."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pullonce.bus.memory.bus import MemoryBus
from pullonce.pushing import PushFailed, push
from pullonce.store.content import open_store
from schemas.push import PushImage, PushNow, decode_status
from schemas.subjects import push_image_subject, push_now_subject
from services.fetcher.pushing import service
from services.fetcher.pushing.service import Pushes
from tests.integration.exchange.conftest import NAME, list_image
from tests.support.buses import eventually
from tests.support.deployment import Deployment
from tests.support.images import image, layer, tar_of
from tests.support.push_registry import PushRegistry, held_until
from tests.support.pushing import pushing_store
from tests.support.registry import RegistryServer
from tests.support.screen import Terminal

APP = image([layer(tar_of({f"file-{each}": random.Random(each).randbytes(2_000_000)})) for each in range(2)])


@pytest.fixture(scope="module")
def pullonce(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("push") / "home").start()
    list_image(open_store(deployment.store), NAME, APP)
    yield deployment
    deployment.stop()


def test_a_push_says_what_came_of_it(pullonce: Deployment, registry: RegistryServer) -> None:
    first, again = (pullonce.run("push", NAME, f"{registry.host}/team/app:2") for _ in range(2))
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout.splitlines()[:3] == [f"{registry.host}/team/app:2", f"digest    {APP.digest}", "pushed    linux/amd64"]
    assert "3 pushed (4.0 MB), 0 taken over, 0 there already" in first.stdout
    assert "0 pushed, 0 taken over, 3 there already (4.0 MB)" in again.stdout
    assert pullonce.run("pull", f"{registry.host}/team/app:2", "-q").returncode == 0
    over = json.loads(pullonce.run("push", NAME, f"{registry.host}/other/app:2", "--json").stdout)
    assert {each["state"] for each in over["blobs"]} == {"mounted"}, "it was pulled from there, so it is there"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["UPPER CASE"], 2, "UPPER CASE"),
        ([NAME, "127.0.0.1:1/Upper:1"], 2, "Upper"),
        (["registry.example/nobody:1"], 1, "image.missing: registry.example/nobody:1 is not in the store; pull it first"),
        ([NAME, "127.0.0.1:1/app:1", "--credential", "nobody"], 1, "credential.unknown"),
        ([NAME, "127.0.0.1:1/app:1", "--platform", "linux/s390x"], 1, "not in the store for linux/s390x, but for linux/amd64"),
    ],
)
def test_what_cannot_be_pushed_is_said(pullonce: Deployment, arguments: list[str], code: int, says: str) -> None:
    done = pullonce.run("push", *arguments)
    assert done.returncode == code and says in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_on_a_terminal_each_blob_has_a_line(pullonce: Deployment, registry: RegistryServer) -> None:
    words = [sys.executable, "-m", "pullonce", "push", NAME, f"{registry.host}/on/terminal:1"]
    terminal = Terminal(words, pullonce.environ, (100, 24))
    try:
        assert terminal.end() == 0
        assert [each.split()[1] for each in terminal.screen.lines[:3]] in (["pushed"] * 3, ["mounted"] * 3)
        assert terminal.screen.lines[3] == f"{registry.host}/on/terminal:1"
    finally:
        terminal.close()


@pytest.mark.parametrize("leaves", ["silently", "by a word", "by cancelling"])
async def test_a_push_that_nobody_waits_for_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: str) -> None:
    monkeypatch.setattr(service, "ABANDONED", 0.3)
    release, reached = asyncio.Event(), asyncio.Event()
    signals = MemoryBus().signals
    async with PushRegistry() as registry, pushing_store(tmp_path) as s, Pushes(signals, "default", s.pusher):
        registry.plan("PATCH", held_until(release, reached), 10)
        wanted = PushImage(id="ab" * 8, reference=NAME, target=f"{registry.host}/app:1")
        asked = msgspec.json.encode(wanted)
        if leaves == "by cancelling":
            client = asyncio.ensure_future(push(signals, wanted, lambda status: None))
        else:
            await signals.request(push_image_subject("default"), asked, timeout=5)
        now = push_now_subject("default", wanted.id)
        try:
            await reached.wait()
            if leaves == "by cancelling":
                client.cancel()
                await asyncio.gather(client, return_exceptions=True)
            elif leaves == "by a word":
                await signals.request(now, msgspec.json.encode(PushNow(leave=True)), timeout=5)
            else:
                state = "pushing"
                while state == "pushing":
                    await asyncio.sleep(1)  # longer than anybody may be silent
                    status = decode_status(await signals.request(now, msgspec.json.encode(PushNow()), timeout=5))
                    state = status.state
                assert (state, status.code) == ("failed", "push.left")
                return

            async def gone() -> bool:
                try:
                    await signals.request(now, msgspec.json.encode(PushNow()), timeout=5)
                except TimeoutError:
                    return True
                return False

            await eventually(gone)
        finally:
            release.set()
    assert ("app", "1") not in registry.manifests and s.left()


async def test_a_push_is_asked_for_in_words_that_are_known(tmp_path: Path) -> None:
    signals = MemoryBus().signals
    async with pushing_store(tmp_path) as s, Pushes(signals, "default", s.pusher):
        for body in (
            b"",
            b"{",
            b'{"type":"push.image","id":"x","reference":"a"}',
            b'{"id":"../../../../../../..","reference":"a"}',
        ):
            status = decode_status(await signals.request(push_image_subject("default"), body, timeout=5))
            assert (status.state, status.code) == ("failed", "message.malformed")
        with pytest.raises(PushFailed) as caught:
            await push(signals, PushImage(id="c" * 16, reference="UPPER"), lambda status: None)
        assert caught.value.code == "NAME_INVALID"

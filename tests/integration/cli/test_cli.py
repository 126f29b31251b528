"""The commands that look at a store and at the log, after a real pull from a real registry process."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.demo.registry import DemoImage, DemoRegistry
from tests.support.command import Up, pullonce, start

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


class World:
    """A served home into which an image was pulled."""

    def __init__(self, home: Path, registry: DemoRegistry) -> None:
        self.home = home
        self.reference = registry.reference
        self.image_id = registry.image.config

    def run(self, *arguments: str, code: int = 0) -> str:
        done = pullonce(*arguments, home=self.home)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("home")
    with DemoRegistry(DemoImage()) as registry, Up(home):
        world = World(home, registry)
        world.run("pull", registry.reference)
        yield world


@pytest.mark.parametrize(
    "arguments, code",
    [((), 2), (("nonsense",), 2), (("--help",), 0), (("pull",), 2), (("pull", "a", "--timeout", "0"), 2),
     (("pull", "UPPER"), 2), (("pull", "a", "--platform", "linux"), 2), (("pull", "a", "--store", "a.b"), 2),
     (("pull", "a", "--credential", "a/b"), 2), (("up", "--fetchers", "0"), 2), (("pull", "--help"), 0), (("--version",), 0)],
)  # fmt: skip
def test_usage(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    done = pullonce(*arguments, home=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr and (done.stdout if code == 0 else done.stderr)


def test_help_documents_the_exit_codes(tmp_path: Path) -> None:
    for arguments in (("--help",), ("pull", "--help")):
        said = pullonce(*arguments, home=tmp_path).stdout
        assert "exit codes:" in said and all(f"\n  {code} " in said for code in (0, 1, 2, 3, 130))


@pytest.mark.parametrize("arguments", [("ping",), ("status",), ("events",)])
def test_without_a_bus(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = pullonce(*arguments, home=tmp_path, url="nats://127.0.0.1:1")
    assert done.returncode == 3 and "127.0.0.1:1" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("ping",), ("status",), ("events",)])
def test_without_anything(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = pullonce(*arguments, home=tmp_path)
    assert done.returncode == 3 and f"nothing serves {tmp_path}" in done.stderr


def test_a_pull_of_what_is_there_reuses_it(world: World) -> None:
    ending = json.loads(world.run("pull", "--json", world.reference))
    assert ending["image_id"] == world.image_id
    assert (ending["sharing"].get("fetched", 0), ending["sharing"].get("unpacked", 0)) == (0, 0)


def test_a_pull_that_fails_says_why(world: World) -> None:
    missing = world.reference.replace(":1", ":2") if world.reference.endswith(":1") else world.reference
    said = world.run("pull", missing, code=1)
    assert said.startswith("pullonce: MANIFEST_UNKNOWN: ") and said.count("\n") == 1


def test_images(world: World) -> None:
    lines = world.run("images").splitlines()
    assert lines[0].split()[:2] == ["REFERENCE", "PLATFORM"]
    assert lines[1].split()[0] == world.reference and world.image_id[7:19] in lines[1]
    (record,) = json.loads(world.run("images", "--json"))
    assert record["image_id"] == world.image_id and len(record["chain_ids"]) == 4


@needs_root
def test_the_printed_mount_is_one_that_works(world: World, tmp_path: Path) -> None:
    arguments = shlex.split(world.run("mounts", world.reference))
    subprocess.run(["mount", *arguments, str(tmp_path)], check=True)
    try:
        check_tree(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    described = json.loads(world.run("mounts", "--json", world.reference))
    assert (described["type"], described["source"]) == ("overlay", "overlay")
    assert described["options"][0] == "ro" and any(option.startswith("lowerdir=") for option in described["options"])


@needs_root
def test_mount_and_umount(world: World, tmp_path: Path) -> None:
    world.run("mount", world.reference, str(tmp_path))
    try:
        check_tree(tmp_path)
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "new").touch()
    finally:
        world.run("umount", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert "cannot unmount" in world.run("umount", str(tmp_path), code=1)


def check_tree(root: Path) -> None:
    assert (root / "opt/app/main.py").read_text() == "print('hello')\n"
    assert (root / "usr/lib/base/000.bin").stat().st_size == 60_000
    assert not (root / "opt/app/data/00.bin").exists() and (root / "opt/app/data/01.bin").exists()  # a whiteout hides it


def test_what_is_not_there_cannot_be_mounted(world: World, tmp_path: Path) -> None:
    for command in (("mounts", "nothing/here"), ("mount", "nothing/here", str(tmp_path))):
        assert "is not in store default" in world.run(*command, code=1)
    assert "is not in store default" in world.run("mounts", world.reference, "--platform", "plan9/mips", code=1)


def test_events(world: World) -> None:
    lines = [json.loads(line) for line in world.run("events", "--json").splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    kinds = [line["event"]["type"] for line in lines]
    assert kinds.count("blob.fetched") == 4 and kinds.count("layer.unpacked") == 4
    later = [json.loads(line) for line in world.run("events", "--json", "--since", "5").splitlines()]
    assert later == lines[4:]
    assert world.run("events", "--since", str(len(lines) + 1)) == ""
    readable = world.run("events").splitlines()
    assert len(readable) == len(lines)
    assert any("pull.completed" in line and world.reference in line for line in readable)


def test_following_events_shows_new_ones(world: World) -> None:
    last = len(world.run("events").splitlines())
    follower = start("events", "--follow", "--json", "--since", str(last + 1), home=world.home)
    assert follower.stdout is not None
    world.run("pull", world.reference)
    assert json.loads(follower.stdout.readline())["event"]["type"] == "pull.requested"
    follower.send_signal(2)
    _, err = follower.communicate(timeout=30)
    assert follower.returncode == 130 and err == ""


def test_a_reader_that_has_enough_is_no_failure(world: World) -> None:
    follower = start("events", "--json", home=world.home)
    assert follower.stdout is not None and follower.stderr is not None
    follower.stdout.close()
    assert follower.wait(30) == 0 and follower.stderr.read() == ""
    follower.stderr.close()


def test_an_image_that_was_only_fetched_has_no_snapshot(world: World) -> None:
    digest = json.loads(world.run("images", "--json"))[0]["digest"]
    named = f"{world.reference.rpartition(':')[0]}@{digest}"
    assert "layers" not in world.run("pull", "--no-unpack", named)
    assert "was not unpacked" in world.run("mounts", named, code=1)

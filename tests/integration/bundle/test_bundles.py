"""The life of a bundle: what is refused and leaves nothing behind, what is mounted again, what is let go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pullonce.bundle.bundles import Bundles
from pullonce.care.held import HeldThings, counted
from pullonce.care.things import layer
from pullonce.store.mounting import unmount
from pullonce.store.tables import tables
from tests.integration.bundle.conftest import APP
from tests.support.bundles import Shelf, busybox
from tests.support.layers import entry
from tests.support.trees import read_tree


def is_mounted(path: Path) -> bool:
    return (path / "rootfs").is_mount()


@pytest.mark.parametrize("name", ["a,b", "a:b", "a\\b", "a b", "l\nine", "ü", "-x", "lowerdir=x,y:z\\", "%s'\""])
def test_a_directory_of_any_name(shelf: Shelf, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    shelf.bundle(APP, place, "-u", "0", "--", "cat", "/etc/app")
    assert shelf.run(place, root=tmp_path / "runc").stdout == "fresh"
    assert shelf.held() == [str(place)]
    assert shelf.say("unbundle", place)[0] == 0
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "runc"])


def full(place: Path) -> Path:
    place.mkdir()
    (place / "file").touch()
    return place


def a_file(place: Path) -> Path:
    place.touch()
    return place


def somebody_elses(place: Path) -> Path:
    place.mkdir()
    os.chown(place, 1000, 1000)
    return place


def a_strangers_link(place: Path) -> Path:
    place.with_name("target").mkdir()
    place.symlink_to("target")
    os.chown(place, 1000, 1000, follow_symlinks=False)
    return place


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (full, "is not empty"),
        (a_file, "is no directory"),
        (somebody_elses, "belongs to user 1000"),
        (a_strangers_link, "is a link that user 1000 made"),
        (lambda place: place.with_name("a" * 260), "File name too long"),
        (lambda place: f"{place}\udcff", "no name in UTF-8"),
        (lambda place: "", "no name of a directory"),
    ],
)
def test_a_directory_that_cannot_be_one(shelf: Shelf, tmp_path: Path, there: Callable[[Path], Path], told: str) -> None:
    given = there(tmp_path / "bundle")
    before = read_tree(tmp_path)
    code, _, err = shelf.say("bundle", APP, given)
    assert code == 1 and told in err and err.count("\n") == 1, err
    assert read_tree(tmp_path).keys() == before.keys()
    assert shelf.held() == []


def test_a_directory_in_the_store_is_refused(shelf: Shelf) -> None:
    """What lies there unknown is collected."""
    code, _, err = shelf.say("bundle", APP, shelf.store / "staging" / "bundle")
    assert code == 1 and "lies in the store" in err
    assert not (shelf.store / "staging" / "bundle").exists()


def test_a_disk_without_room_is_told_and_nothing_is_left(shelf: Shelf, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for inodes in range(2, 19, 2):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"nr_inodes={inodes}", "tmpfs", str(small)], check=True)
        try:
            code, _, err = shelf.say("bundle", APP, small / "bundle")
            if code == 0:
                shelf.say("unbundle", small / "bundle")
            else:
                assert any(told in err for told in ("no inodes left", "No space left")) and err.count("\n") == 1
            assert (list(small.iterdir()), shelf.held()) == ([], [])
        finally:
            unmount(small)
    assert code == 0, "there was room in the end"


def test_an_empty_directory_of_ours_is_taken_and_left(shelf: Shelf, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    shelf.bundle(APP, tmp_path / "link")
    assert shelf.held() == [str(real)]
    (real / "notes").touch()
    assert shelf.say("unbundle", tmp_path / "link")[0] == 0
    assert [path.name for path in real.iterdir()] == ["notes"]


def test_a_bundle_is_not_made_twice(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shelf.bundle(APP, place)
    (place / "rootfs" / "mine").touch()
    code, _, err = shelf.say("bundle", APP, place)
    assert code == 1 and f"is a bundle of {APP} already" in err
    assert (place / "rootfs" / "mine").exists() and shelf.held() == [str(place)]
    shelf.say("unbundle", place)
    code, _, err = shelf.say("unbundle", place)
    assert code == 1 and "is no bundle" in err


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "names no program"),
        ({"Cmd": ["x"], "User": "nobody"}, "'nobody'"),
        ({"Cmd": ["x"], "WorkingDir": "here"}, "expected an absolute path"),
        ({"Cmd": ["x"], "Env": ["A=\0"]}, "NUL byte"),
        ({"Cmd": ["x"], "Env": [f"A{n}=" + "x" * 100_000 for n in range(22)]}, "at most"),
        ({"Cmd": "x"}, "cannot be read"),
    ],
)
def test_an_image_that_cannot_be_started_leaves_nothing(
    shelf: Shelf, tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    shelf.put("registry.example/hostile:1", busybox(), config=config)
    code, _, err = shelf.say("bundle", "registry.example/hostile:1", tmp_path / "bundle")
    assert code == 1 and told in err and err.count("\n") == 1, err
    assert (list(tmp_path.iterdir()), shelf.held()) == ([], [])


@pytest.mark.parametrize(
    ("file", "told"),
    [
        (entry("etc/passwd", "fifo"), "no ordinary file"),
        (entry("etc/passwd", "symlink", linkname="passwd"), "Too many levels"),
        (entry("etc/passwd", "dir"), "no ordinary file"),
        (entry("etc/passwd", "symlink", linkname="../../../../../../etc/passwd"), "Too many levels"),
        (entry("etc/passwd", "char", devmajor=1, devminor=5), "no ordinary file"),
        (entry("etc/.wh.passwd"), "'daemon'"),
    ],
)
def test_users_are_looked_up_in_the_image_and_nowhere_else(shelf: Shelf, tmp_path: Path, file: Any, told: str) -> None:
    """This machine knows a `daemon`; the image does not, however it is asked."""
    shelf.put("registry.example/users:1", busybox(), [file], config={"Cmd": ["id"], "User": "daemon"})
    code, _, err = shelf.say("bundle", "registry.example/users:1", tmp_path / "bundle")
    assert code == 1 and told in err, err
    assert (list(tmp_path.iterdir()), shelf.held()) == ([], [])


def test_a_link_of_the_image_leads_within_it(shelf: Shelf, tmp_path: Path) -> None:
    more = [entry("etc/.wh.passwd"), entry("etc/passwd", "symlink", linkname="/../../real/users"), entry("real", "dir"),
            entry("real/users", content=b"daemon:x:77:78::/:\n")]  # fmt: skip
    shelf.put("registry.example/users:2", busybox(), more[1:], config={"Cmd": ["id"], "User": "daemon"})
    config = shelf.bundle("registry.example/users:2", tmp_path / "bundle")
    assert config["process"]["user"]["uid"] == 77
    shelf.say("unbundle", tmp_path / "bundle")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["registry.example/nobody/knows:1", "DIR", "--policy", "never"], 1, "pull it first"),
        (["UPPER", "DIR"], 2, "UPPER"),
        (["odd\udcff\n", "DIR"], 2, "reference"),
        ([APP, "DIR", "--platform", "linux"], 2, "no platform"),
        ([APP, "DIR", "--platform", "linux/riscv64", "--policy", "never"], 1, "for linux/amd64 and not for linux/riscv64"),
        (["registry.example/arm:1", "DIR", "--policy", "never"], 1, "is in store default for linux/arm64 and not"),
        (["registry.example/windows:1", "DIR", "--platform", "windows/amd64"], 1, "a bundle is for Linux"),
        ([APP], 2, "takes REF and DIR"),
        ([APP, "DIR", "sh"], 2, "follow `--`"),
        ([APP, "DIR", "--uidmap", "1:2"], 2, "no range of ids"),
        ([APP, "DIR", "--uidmap", "0:200000:10"], 2, "user 1000 of the container is nobody"),
        ([APP, "DIR", "--cap-add", "fly"], 2, "no capability"),
        ([APP, "DIR", "--mount", "dst=/x"], 2, "needs a source"),
        ([APP, "DIR", "--mount", "src=/not/there,dst=/x"], 2, "is not there"),
        ([APP, "DIR", "--cwd", "x"], 2, "absolute path"),
        ([APP, "DIR", "--args", "a", "--", "b"], 2, "the whole command"),
        ([APP, "DIR", "--", "a\udcff"], 2, "no UTF-8"),
        ([APP, "DIR", "--user", "daemon"], 1, "'daemon'"),
        ([APP, "DIR", "--read-only", "--mount", "src=/etc,dst=/etc/app"], 1, "of another kind"),
        (["--remount", "DIR"], 1, "is no bundle"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(shelf: Shelf, reachable: Path, words: list[str], code: int, told: str) -> None:
    shelf.put("registry.example/arm:1", busybox(), config={"Cmd": ["x"]}, platform="linux/arm64")
    shelf.put("registry.example/windows:1", busybox(), config={"Cmd": ["x"]}, platform="windows/amd64")
    place = reachable / "bundle"
    got, _, err = shelf.say("bundle", *(str(place) if word == "DIR" else word for word in words))
    assert (got, err.count("\n")) == (code, 1) and told in err, (got, err)
    assert (place.exists(), shelf.held()) == (False, [])


def test_an_image_for_another_machine_is_made_when_that_is_said(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("registry.example/arm:1", busybox(), config={"Cmd": ["x"]}, platform="linux/arm64")
    shelf.bundle("registry.example/arm:1", tmp_path / "bundle", "--platform", "linux/arm64")
    assert json.loads(shelf.say("bundles", "--json")[1])[0]["platform"] == "linux/arm64"
    shelf.say("unbundle", tmp_path / "bundle")


def test_the_root_of_a_user_namespace_has_to_get_there(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0o700)
    code, _, err = shelf.say("bundle", APP, tmp_path / "closed" / "bundle", "--uidmap", "0:200000:65536")
    assert code == 1 and "may not pass" in err
    assert list((tmp_path / "closed").iterdir()) == []


@pytest.mark.parametrize("options", [(), ("--read-only",), ("--uidmap", "0:200000:65536")])
def test_after_a_reboot_it_is_mounted_again(shelf: Shelf, reachable: Path, options: tuple[str, ...]) -> None:
    place = reachable / "bundle"
    shelf.bundle(APP, place, *options, "-u", "0", "--", "sh", "-c", "cat /etc/app; echo kept > /etc/app; stat -c %u /owned")
    shelf.run(place, root=reachable / "runc")
    unmount(place / "rootfs")
    assert "not mounted" in shelf.say("bundles")[1]
    code, _, err = shelf.say("bundle", APP, place)
    assert code == 1 and "--remount" in err
    assert shelf.say("bundle", "--remount", place) == (0, f"{place} is mounted\n", "")
    assert shelf.say("bundle", "--remount", place) == (0, f"{place} is mounted already\n", "")
    done = shelf.run(place, root=reachable / "runc")
    assert done.stdout == ("fresh" if "--read-only" in options else "kept\n") + "1000\n"
    shelf.say("unbundle", place)


def test_a_hold_that_is_gone_is_written_again(shelf: Shelf, tmp_path: Path) -> None:
    shelf.bundle(APP, tmp_path / "bundle")
    unmount(tmp_path / "bundle" / "rootfs")
    shelf.content.layout.holds.joinpath("bundles").rename(tmp_path / "away")
    assert shelf.say("bundle", "--remount", tmp_path / "bundle")[0] == 0
    assert shelf.held() == [str(tmp_path / "bundle")]
    shelf.say("unbundle", tmp_path / "bundle")


def test_one_that_was_moved_is_the_same_bundle(shelf: Shelf, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    shelf.bundle(APP, one, "-u", "0", "--", "cat", "/etc/app")
    unmount(one / "rootfs")
    one.rename(other)
    assert "gone" in shelf.say("bundles")[1]
    assert shelf.say("bundle", "--remount", other)[0] == 0
    assert shelf.held() == [str(other)]
    assert shelf.run(other, root=tmp_path / "runc").stdout == "fresh"
    shelf.say("unbundle", other)
    assert (shelf.held(), other.exists()) == ([], False)


def test_one_whose_directory_was_deleted_is_let_go_by_name(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shelf.bundle(APP, place)
    unmount(place / "rootfs")
    subprocess.run(["rm", "-r", str(place)], check=True)
    assert "gone" in shelf.say("bundles")[1]
    assert shelf.say("unbundle", place)[0] == 0
    assert shelf.held() == []


def test_it_is_not_taken_from_under_a_container(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    shelf.bundle(APP, place, "-u", "0", "--", "sh", "-c", "echo ready; while test ! -e /end; do sleep 0.02; done; cat /etc/app")
    command = [shelf.runc, "--root", str(tmp_path / "runc"), "run", "--bundle", str(place), "held"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    code, _, err = shelf.say("unbundle", place)
    assert code == 1 and "is in use by process" in err
    assert is_mounted(place) and (place / "config.json").exists() and shelf.held() == [str(place)]
    (place / "rootfs" / "end").touch()
    assert running.stdout.read() == "fresh"
    assert running.wait(30) == 0
    with (place / "rootfs" / "etc" / "app").open():
        code, _, err = shelf.say("unbundle", place)
        assert code == 1 and "is in use by a process" in err
        assert shelf.say("unbundle", "--force", place)[0] == 0
    assert not any(str(place) in table for _, table in tables())
    assert (shelf.held(), place.exists()) == ([], False)


def test_whoever_merely_has_all_mounts_keeps_nothing(shelf: Shelf, tmp_path: Path) -> None:
    """A shell in a mount namespace of its own that was begun meanwhile."""
    place = tmp_path / "a b\\c"
    shelf.bundle(APP, place)
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None and shell.stdout.readline() == b"ready\n"
        assert any(process == str(shell.pid) for process, _ in tables())
        assert shelf.say("unbundle", place) == (0, "", "")
        shell.kill()
    assert (shelf.held(), place.exists()) == ([], False)


def test_what_keeps_layers_is_called_by_its_name(shelf: Shelf, tmp_path: Path) -> None:
    shelf.bundle(APP, tmp_path / "bundle")
    record = shelf.content.images.named(APP)[0]
    held = HeldThings(shelf.content)
    assert counted(held.things(), set(map(layer, record.chain_ids))) == {f"the bundle {tmp_path / 'bundle'}": 2}
    shelf.say("unbundle", tmp_path / "bundle")
    assert held.things() == {}


def test_several_at_once_make_one(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    command = [sys.executable, "-m", "pullonce", "bundle", "--home", str(shelf.home), APP, str(place)]
    begun = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [each.communicate(timeout=60) for each in begun]
    assert sorted(each.returncode for each in begun) == [0, 1, 1, 1], said
    assert is_mounted(place) and shelf.held() == [str(place)]
    shelf.say("unbundle", place)


def test_it_tells_what_there_is(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.say("bundles") == (0, "DIRECTORY  REFERENCE  PLATFORM  ROOT  STATE\n", "")
    shelf.bundle(APP, tmp_path / "one", "--read-only")
    lines = shelf.say("bundles")[1].splitlines()
    assert lines[1].split() == [str(tmp_path / "one"), APP, "linux/amd64", "read-only", "mounted"]
    assert [each.directory for each in Bundles(shelf.content).all()] == [str(tmp_path / "one")]
    shelf.say("unbundle", tmp_path / "one")


def test_whoever_is_not_root_is_told_what_is_needed(shelf: Shelf, tmp_path: Path) -> None:
    """As another user within this process, who may not read where the interpreter lies."""
    os.seteuid(65534)
    try:
        code, _, err = shelf.say("bundle", APP, tmp_path / "bundle")
    finally:
        os.seteuid(0)
    assert code == 1 and "unshare --user" in err


def test_of_several_one_that_cannot_be_holds_up_no_other(shelf: Shelf, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for place in (one, other):
        shelf.bundle(APP, place)
        unmount(place / "rootfs")
    code, out, err = shelf.say("bundle", "--remount", one, tmp_path / "none", other)
    assert (code, out, err.count("\n")) == (1, f"{one} is mounted\n{other} is mounted\n", 1)
    code, out, err = shelf.say("unbundle", one, tmp_path / "none", other)
    assert (code, out, err.count("\n"), shelf.held()) == (1, "", 1, [])


@pytest.mark.parametrize("options", [(), ("--uidmap", "0:200000:65536")])
def test_other_users_do_not_get_into_it(shelf: Shelf, reachable: Path, options: tuple[str, ...]) -> None:
    place = reachable / "bundle"
    shelf.bundle(APP, place, *options)
    for path in (place / "rootfs" / "set", place / "config.json", place / "overlay" / "upper"):
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError):
                path.stat()
        finally:
            os.seteuid(0)
    shelf.say("unbundle", place)

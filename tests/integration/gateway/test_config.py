"""`pullonce gateway config` on files of a disk: whole, once, with a copy, and as the runtimes themselves understand them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pullonce.runtimes.files import FilesRefused
from pullonce.runtimes.json_text import JsonText
from pullonce.runtimes.plan import Change
from pullonce.runtimes.tree import RootTree
from pullonce.runtimes.writing import apply
from tests.support.command import environment, pullonce
from tests.support.programs import find

DEBIAN = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "example.com/pause:3"   # ours
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "etc" / "containerd").mkdir(parents=True)
    return tmp_path / "root"


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def config(runtime: str, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pullonce.cli.main", "gateway", "config", runtime, "--root", str(root), *more]
    environ = {key: value for key, value in environment(root / "home").items() if key != "PULLONCE_GATEWAY_MIRROR"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ, check=False)


def test_containerd_understands_what_was_added(root: Path) -> None:
    binary = find("containerd", "containerd is not on PATH (Debian: apt install containerd)")
    file = root / "etc" / "containerd" / "config.toml"
    file.write_text(DEBIAN)
    file.chmod(0o640)
    shown = config("containerd", root)
    assert shown.returncode == 0 and 'snapshotter = "pullonce"' in shown.stdout and file.read_text() == DEBIAN
    assert config("containerd", root, "--write").returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    copy = file.with_name("config.toml.before-pullonce")
    assert copy.read_text() == DEBIAN and stat.S_IMODE(copy.stat().st_mode) == 0o640
    again = config("containerd", root, "--write")
    assert "nothing to do" in again.stdout and names(file.parent) == ["certs.d", "config.toml", copy.name]
    dump = subprocess.run([binary, "-c", file, "config", "dump"], capture_output=True, text=True, check=True).stdout
    said = tomllib.loads(dump)
    cri = said["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["containerd"]["snapshotter"] == "pullonce" and not cri["containerd"]["disable_snapshot_annotations"]
    assert cri["sandbox_image"] == "example.com/pause:3" and cri["registry"]["config_path"] == "/etc/containerd/certs.d"
    assert said["proxy_plugins"]["pullonce"]["address"] == str(root / "home" / "run" / "snapshots.sock")


def test_a_conflict_writes_nothing_at_all(root: Path) -> None:
    file = root / "etc" / "containerd" / "config.toml"
    text = DEBIAN + '[plugins."io.containerd.grpc.v1.cri".containerd]\n  snapshotter = "stargz"\n'
    file.write_text(text)
    done = config("containerd", root, "--write")
    assert done.returncode == 1 and "/etc/containerd/config.toml, line 9" in done.stderr and '"stargz"' in done.stderr
    assert file.read_text() == text and names(file.parent) == ["config.toml"]


def test_the_gateways_own_settings_count(root: Path) -> None:
    (root / "etc" / "pullonce").mkdir()
    (root / "etc" / "pullonce" / "pullonce.conf").write_text("PULLONCE_GATEWAY_MIRROR=127.0.0.1:9999\n")
    assert '"http://127.0.0.1:9999"' in config("docker", root).stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("gateway", "config", "lxd"), 2, "invalid choice"),
        (("gateway",), 2, "required"),
        (("gateway", "config", "docker", "--root", "/nowhere/at/all"), 1, "no directory"),
        (("gateway", "config", "containerd", "--containerd-version", "new"), 1, "no version of containerd"),
        (("gateway", "config", "docker", "--door", "cri"), 1, "does not use"),
    ],
)
def test_what_cannot_be_done_is_said(words: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    done = pullonce(*words, home=tmp_path)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr


def change(path: str, before: str | None, after: str = "after\n") -> Change:
    return Change(path, before, after, after)


def test_copies_are_counted_and_new_directories_can_be_read(root: Path) -> None:
    tree, file = RootTree(root), root / "etc" / "deep" / "file"
    umask = os.umask(0o077)
    try:
        assert apply(tree, change("/etc/deep/file", None, "1\n")) == ""
        assert [Path(apply(tree, change("/etc/deep/file", f"{n}\n", f"{n + 1}\n"))).name for n in (1, 2, 3)] == [
            "file.before-pullonce", "file.before-pullonce-2", "file.before-pullonce-3"
        ]  # fmt: skip
    finally:
        os.umask(umask)
    assert file.read_text() == "4\n" and file.with_name("file.before-pullonce-2").read_text() == "2\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644 and stat.S_IMODE(file.parent.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others, which root alone can")
def test_owner_and_mode_are_kept(root: Path) -> None:
    file = root / "etc" / "file"
    file.write_text("before\n")
    os.chown(file, 1234, 4321)
    file.chmod(0o604)
    copy = Path(apply(RootTree(root), change("/etc/file", "before\n")))
    for each in (file, copy):
        found = each.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o604)


@pytest.mark.parametrize("target", ["/etc/real/file", "real/file", "../etc/real/file", "/etc/containerd/../real/file"])
def test_links_are_followed_within_the_root(target: str, root: Path) -> None:
    real = root / "etc" / "real" / "file"
    real.parent.mkdir()
    real.write_text("before\n")
    (root / "etc" / "link").symlink_to(target)
    apply(RootTree(root), change("/etc/link", "before\n"))
    assert real.read_text() == "after\n" and (root / "etc" / "link").is_symlink()
    assert real.with_name("file.before-pullonce").exists()


def test_links_in_circles_directories_and_what_is_no_text_are_refused(root: Path) -> None:
    tree = RootTree(root)
    (root / "etc" / "a").symlink_to("b")
    (root / "etc" / "b").symlink_to("a")
    (root / "etc" / "dir").mkdir()
    (root / "etc" / "bytes").write_bytes(b"ok\n\xff\n")
    os.mkfifo(root / "etc" / "pipe")
    for path, why in (("a", "Too many levels"), ("dir", "is no file"), ("pipe", "is no file")):
        with pytest.raises(FilesRefused, match=why):
            tree.read(f"/etc/{path}")
    done = config("docker", root, "--config", "/etc/bytes")
    assert done.returncode == 1 and "/etc/bytes, line 2: this is no text in UTF-8" in done.stderr


def test_a_file_that_was_changed_meanwhile_is_not_written(root: Path) -> None:
    (root / "etc" / "file").write_text("somebody was faster\n")
    with pytest.raises(FilesRefused, match="changed in this moment"):
        apply(RootTree(root), change("/etc/file", "before\n"))
    with pytest.raises(FilesRefused, match="changed in this moment"):
        apply(RootTree(root), change("/etc/file", None))
    assert names(root / "etc") == ["containerd", "file"]


def test_runs_at_once_lose_nothing_of_each_other(root: Path) -> None:
    file = root / "etc" / "daemon.json"
    file.write_text('{"a": 1}\n')
    together = threading.Barrier(6)

    def add(number: int) -> str:
        tree = RootTree(root)
        together.wait()
        while True:
            before = tree.read("/etc/daemon.json")
            after = JsonText(before or "").with_item("mirrors", str(number)).text
            try:
                return apply(tree, change("/etc/daemon.json", before, after))
            except FilesRefused as exc:
                assert "in this moment" in str(exc)

    with ThreadPoolExecutor(6) as pool:
        copies = list(pool.map(add, range(6)))
    assert sorted(json.loads(file.read_text())["mirrors"]) == list("012345") and len(set(copies)) == 6
    assert names(root / "etc") == sorted(["containerd", "daemon.json", *(Path(each).name for each in copies)])


def test_of_two_new_files_one_is_written(root: Path) -> None:
    together = threading.Barrier(4)

    def make(number: int) -> int:
        together.wait()
        try:
            apply(RootTree(root), change("/etc/new/file", None, f"{number}\n"))
        except FilesRefused:
            return -1
        return number

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(make, range(4)))
    (winner,) = (each for each in done if each >= 0)
    assert (root / "etc" / "new" / "file").read_text() == f"{winner}\n" and names(root / "etc" / "new") == ["file"]


def test_a_draft_that_was_left_behind_is_in_nobodys_way(root: Path) -> None:
    (root / "etc" / f".file.{os.getpid()}").write_text("of a run that was killed")
    apply(RootTree(root), change("/etc/file", None))
    assert (root / "etc" / "file").read_text() == "after\n"


def test_attributes_are_kept(root: Path) -> None:
    file = root / "etc" / "file"
    file.write_text("before\n")
    try:
        os.setxattr(file, "user.whose", b"ours")
    except OSError as exc:
        pytest.skip(f"this file system has no attributes: {exc.strerror}")
    copy = Path(apply(RootTree(root), change("/etc/file", "before\n")))
    assert os.getxattr(file, "user.whose") == os.getxattr(copy, "user.whose") == b"ours"

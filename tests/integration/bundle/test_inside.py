"""Files of an image by their names in it. Needs no root: a tree is a tree."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pullonce.bundle.errors import ConfigInvalid
from pullonce.bundle.inside import make_place, opened, read_text

OURS = (os.geteuid(), os.getegid())


@pytest.fixture
def tidy() -> None:
    """There is no mount to remove here."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "image"
    for path in ("etc", "run", "a/b"):
        (made / path).mkdir(parents=True)
    (tmp_path / "secret").write_text("outside")
    (made / "secret").write_text("inside")
    (made / "etc" / "file").write_text("plain")
    for link, target in (
        ("abs", "/secret"), ("up", "../../../secret"), ("a/b/rel", "../../etc/file"), ("a/dir", "/etc"), ("var", "/nowhere"),
        ("loop", "loop"), ("one", "other"), ("other", "/one"), ("long", "/" + "a/../" * 500 + "secret"), ("dot", "."),
        ("tmp", "/run/missing"), ("stub", "run/x/y/stub"), ("above", "../../none/../etc/new"), ("through", "etc/file/x"),
    ):  # fmt: skip
        (made / link).symlink_to(target)
    return made


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/file", "plain"), ("etc//./file", "plain"), ("/abs", "inside"), ("/up", "inside"), ("/a/b/rel", "plain"),
        ("/a/dir/file", "plain"), ("/../../secret", "inside"), ("/a/dir/../secret", "inside"), ("/long", "inside"),
        ("/dot/dot/secret", "inside"), ("/none", ""), ("/var", ""), ("/etc/file/x", ""), ("/none/../secret", ""),
    ],
)  # fmt: skip
def test_a_path_stays_in_the_image(root: Path, path: str, text: str) -> None:
    assert read_text(root, path) == text


@pytest.mark.parametrize("path", ["/loop", "/one", "/etc", "/dot", "/fifo", "/socket"])
def test_what_is_no_file_is_told(root: Path, path: str) -> None:
    os.mkfifo(root / "fifo")  # to open one waits for a writer; nothing here does
    os.mknod(root / "socket", stat.S_IFSOCK | 0o600)
    with pytest.raises(ConfigInvalid):
        read_text(root, path)


def test_a_giant_is_told(root: Path) -> None:
    os.truncate(root / "etc" / "file", 17 << 20)
    with pytest.raises(ConfigInvalid, match="at most"):
        read_text(root, "/etc/file")


def test_what_it_leads_to_is_opened_to_be_looked_at(root: Path) -> None:
    with opened(root, "/a/dir") as found:
        assert os.fstat(found).st_ino == (root / "etc").stat().st_ino
    with pytest.raises(FileNotFoundError), opened(root, "/a/none"):
        pass


@pytest.mark.parametrize(
    ("path", "directory", "there"),
    [
        ("/proc", True, "proc"), ("/x/y/z", True, "x/y/z"), ("/mnt/file", False, "mnt/file"), ("/a/dir/new", False, "etc/new"),
        ("/tmp/deep", True, "run/missing/deep"), ("/var/lib", True, "nowhere/lib"), ("/stub", False, "run/x/y/stub"),
        ("/stub", True, "run/x/y/stub"), ("/above", True, "etc/new"),
    ],
)  # fmt: skip
def test_a_place_is_made_where_a_container_has_it(root: Path, path: str, directory: bool, there: str) -> None:
    assert make_place(root, path, directory=directory, owner=OURS)
    assert (root / there).is_dir() == directory and (root / there).exists()
    assert not make_place(root, path, directory=directory, owner=OURS)
    assert sorted(path.name for path in root.parent.iterdir()) == ["image", "secret"]


@pytest.mark.parametrize(
    ("path", "directory"),
    [("/etc", False), ("/etc/file", True), ("/etc/file/below", True), ("/through", True), ("/loop", False)],
)
def test_a_place_of_another_kind_is_told(root: Path, path: str, directory: bool) -> None:
    with pytest.raises(ConfigInvalid, match="of another kind"):
        make_place(root, path, directory=directory, owner=OURS)


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/etc/file", "/loop", "/a/dir/none", "/etc/file/x", "/long"):
        try:
            read_text(root, path)
        except ConfigInvalid:
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before

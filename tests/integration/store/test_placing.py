"""Snapshots in place: the tree under its short name, the directory that makes it count, and stores of earlier versions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pullonce.store import placing
from pullonce.store.content import open_store
from pullonce.store.layout import Layout, short_name
from pullonce.store.mounting import mount, unmount
from pullonce.store.snapshots import Snapshots
from schemas.oci import ChainID

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
KILLED = -9


def chain(digit: str) -> ChainID:
    return ChainID("sha256:" + digit * 64)


def describe(chain_id: ChainID, parent: str = "") -> str:
    told = f'"chain_id":"{chain_id}","diff_id":"{chain_id}","blob":"{chain_id}","parent":"{parent}"'
    return "{" + told + "}"


def old_store(root: Path, *chain_ids: ChainID) -> Layout:
    """A store as versions before the short names left it: each tree in `snapshots/<chain>/fs`, a link in `l/`."""
    open_store(root)
    layout = Layout(root)
    layout.trees.chmod(0o755)
    parent = ""
    for each in chain_ids:
        layout.link(each).mkdir(parents=True)
        (layout.link(each) / "file").write_text(each)
        layout.record(each).write_text(describe(each, parent))
        layout.tree(each).symlink_to(Path("..", "snapshots", layout.snapshot(each).name, "fs"))
        parent = each
    return layout


def is_as_it_should(layout: Layout, *chain_ids: ChainID) -> bool:
    return all(
        layout.tree(each).is_dir()
        and not layout.tree(each).is_symlink()
        and (layout.tree(each) / "file").read_text() == each
        and layout.link(each).is_symlink()
        and layout.link(each).resolve() == layout.tree(each).resolve()
        for each in chain_ids
    )


def draft(layout: Layout, chain_id: ChainID, name: str = "draft") -> Path:
    made = layout.staging / name
    (made / "fs").mkdir(parents=True)
    (made / "fs").chmod(0o700)
    (made / "fs" / "file").write_text(chain_id)
    (made / "snapshot.json").write_text(describe(chain_id))
    return made


def put_in(layout: Layout, made: Path, chain_id: ChainID) -> bool:
    replaced = [made.with_name(f"{made.name}-{number}") for number in (1, 2)]
    return placing.put_in(layout, chain_id, made, there=lambda: Snapshots(layout.root).has(chain_id), replaced=replaced)


def test_a_store_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    layout = old_store(tmp_path, chain("a"), chain("b"))
    snapshots = Snapshots(tmp_path)
    assert [(path / "file").read_text() for path in snapshots.lowerdirs(chain("b"))] == [chain("b"), chain("a")], "before"
    assert placing.take_over(layout) == 2
    assert is_as_it_should(layout, chain("a"), chain("b"))
    assert layout.trees.stat().st_mode & 0o777 == 0o700, "what is in the trees is for nobody else"
    assert [(path / "file").read_text() for path in snapshots.lowerdirs(chain("b"))] == [chain("b"), chain("a")], "after"
    assert placing.take_over(layout) == 0
    assert placing.strays(layout) == []


@pytest.mark.parametrize(
    ("step", "exchanges"), [("store.exchanged", True), ("store.exchanged", False), ("store.unlinked", False)]
)
def test_a_take_over_that_was_killed_goes_on(tmp_path: Path, step: str, exchanges: bool) -> None:
    """By `kill -9` at each step, on file systems that can exchange two names and on others."""
    layout, armed = old_store(tmp_path / "store", chain("a"), chain("b"), chain("c")), tmp_path / "armed"
    armed.mkdir()
    (armed / step).touch()
    program = (
        "import sys\nfrom pathlib import Path\nfrom pullonce.store import placing\nfrom pullonce.store.layout import Layout\n"
        + ("" if exchanges else "placing.exchange = lambda one, other: False\n")
        + "placing.take_over(Layout(Path(sys.argv[1])))"
    )
    environ = {**os.environ, "PULLONCE_FAILPOINTS": str(armed)}
    done = subprocess.run([sys.executable, "-c", program, str(layout.root)], env=environ, check=False)
    assert done.returncode == KILLED
    if exchanges:
        assert all((layout.tree(each) / "file").read_text() == each for each in map(chain, "abc")), "readable at every moment"
    placing.take_over(layout)
    assert is_as_it_should(layout, *map(chain, "abc"))


@needs_root
def test_what_is_mounted_stays_mounted_when_it_is_taken_over(tmp_path: Path) -> None:
    layout, target = old_store(tmp_path / "store", chain("a"), chain("b")), tmp_path / "target"
    target.mkdir()
    mount(Snapshots(layout.root).overlay(chain("b")), target)
    try:
        assert placing.take_over(layout) == 2
        assert (target / "file").read_text() == chain("b")
    finally:
        unmount(target)
    mount(Snapshots(layout.root).overlay(chain("b")), target)
    try:
        assert (target / "file").read_text() == chain("b")
    finally:
        unmount(target)


def test_of_two_that_make_one_snapshot_one_is_first(tmp_path: Path) -> None:
    open_store(tmp_path)
    layout = Layout(tmp_path)
    one, other = draft(layout, chain("a"), "one"), draft(layout, chain("a"), "other")
    assert put_in(layout, one, chain("a"))
    assert not put_in(layout, other, chain("a"))
    assert is_as_it_should(layout, chain("a")) and (other / "fs" / "file").exists()


def test_a_tree_that_belongs_to_nobody_is_replaced_and_found(tmp_path: Path) -> None:
    """As a process leaves it that dies between the two renames, when it puts a snapshot in or takes it out."""
    open_store(tmp_path)
    layout = Layout(tmp_path)
    layout.tree(chain("a")).mkdir()
    (layout.tree(chain("a")) / "old").touch()
    layout.tree(chain("b")).mkdir()
    assert placing.strays(layout) == sorted([short_name(chain("a")), short_name(chain("b"))])
    assert put_in(layout, draft(layout, chain("a")), chain("a"))
    assert is_as_it_should(layout, chain("a")) and not (layout.tree(chain("a")) / "old").exists()
    assert placing.strays(layout) == [short_name(chain("b"))]
    assert not placing.take_out_stray(layout, short_name(chain("a")), tmp_path / "gone"), "it has a snapshot by now"
    assert placing.take_out_stray(layout, short_name(chain("b")), tmp_path / "gone")
    assert placing.strays(layout) == []


PUT_IN = """
import sys
from pathlib import Path
from pullonce.store.layout import Layout
from services.unpacker.staging import Staging
from pullonce.store.snapshots import Snapshot
staging = Staging(Path(sys.argv[1]))
staging.open()
draft = staging.draft()
(draft.tree / "file").write_text(sys.argv[2])
print(staging.commit(draft, Snapshot(chain_id=sys.argv[2], diff_id=sys.argv[2], blob=sys.argv[2])))
"""


@contextmanager
def standing_still(root: Path, chain_id: ChainID, step: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that puts a snapshot in, and stops at a step (SIGSTOP)."""
    armed = root.with_name("armed")
    armed.mkdir()
    (armed / step).write_text("stop")
    environ = {**os.environ, "PULLONCE_FAILPOINTS": str(armed)}
    command, pipe = [sys.executable, "-c", PUT_IN, str(root), chain_id], subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield process
        finally:
            process.kill()


def goes_on(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    open_store(tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("step", ["snapshot.made", "snapshot.placed"])
def test_who_stands_still_keeps_nobody_waiting_and_is_second(root: Path, step: str) -> None:
    layout = Layout(root)
    with standing_still(root, chain("a"), step) as other:
        placed = layout.tree(chain("a")).stat().st_ino if step == "snapshot.placed" else None
        assert placing.strays(layout) == [], "it belongs to whoever goes on with it"
        assert not placing.take_out_stray(layout, short_name(chain("a")), root / "gone")
        assert put_in(layout, draft(layout, chain("a"), "own"), chain("a"))
        assert put_in(layout, draft(layout, chain("b")), chain("b")), "nor anybody with another one"
        assert placed in (None, layout.tree(chain("a")).stat().st_ino), "never exchanged under whoever may have mounted it"
        assert goes_on(other)[0] == "False\n"
    assert is_as_it_should(layout, chain("a"), chain("b")) and placing.strays(layout) == []


def test_who_stood_still_behind_its_last_rename_made_the_snapshot(root: Path) -> None:
    layout = Layout(root)
    with standing_still(root, chain("a"), "snapshot.renamed") as other:
        assert not put_in(layout, draft(layout, chain("a")), chain("a"))
        assert goes_on(other)[0] == "True\n"
    assert is_as_it_should(layout, chain("a"))


def test_what_was_taken_out_while_somebody_stood_still_is_not_half_there_again(root: Path) -> None:
    layout = Layout(root)
    with standing_still(root, chain("a"), "snapshot.placed") as other:
        assert put_in(layout, draft(layout, chain("a")), chain("a"))
        assert placing.take_out(layout, chain("a"), layout.staging / "out")
        assert "was removed while" in goes_on(other)[1]
    assert placing.all_of(layout) == [] and placing.strays(layout) == []


def test_the_tree_of_one_that_died_standing_still_is_nobodys(root: Path) -> None:
    layout = Layout(root)
    with standing_still(root, chain("a"), "snapshot.placed") as other:
        other.kill()
        other.wait()
        assert placing.strays(layout) == [short_name(chain("a"))]
        (layout.tree(chain("a")) / "file").write_text("lost in a power cut")
        assert put_in(layout, draft(layout, chain("a")), chain("a"))
    assert is_as_it_should(layout, chain("a"))


@pytest.mark.parametrize("old", [True, False], ids=["earlier version", "this version"])
def test_a_snapshot_is_taken_out_whole(tmp_path: Path, old: bool) -> None:
    layout = old_store(tmp_path, chain("a"))
    if not old:
        placing.take_over(layout)
    assert placing.take_out(layout, chain("a"), layout.staging / "out")
    assert (layout.staging / "out" / "fs" / "file").read_text() == chain("a")
    assert not (layout.staging / "out" / "fs").is_symlink() and not os.path.lexists(layout.tree(chain("a")))
    assert not placing.take_out(layout, chain("a"), layout.staging / "again")

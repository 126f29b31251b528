"""Bundles that are copied, moved, deleted, and made where another was: none takes the layers of another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pullonce.bundle.holding import BundleHolds
from pullonce.bundle.record import encode
from pullonce.store.content import open_store
from pullonce.store.mounting import unmount
from tests.integration.bundle.conftest import APP, BARE
from tests.support.bundles import Shelf
from tests.support.trees import read_tree


def said(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "pullonce.json").read_bytes())
    return found


def stopped(shelf: Shelf, reference: str, place: Path) -> Path:
    """A bundle as it is after a reboot."""
    shelf.bundle(reference, place, "--", "-c", "true")
    unmount(place / "rootfs")
    return place


def copied(one: Path, other: Path) -> Path:
    subprocess.run(["cp", "-a", str(one), str(other)], check=True)
    return other


def as_before(shelf: Shelf, place: Path) -> None:
    """Have a bundle be one of a version that knew no ids."""
    holds = BundleHolds(shelf.store)
    (known,) = holds.at(place)
    assert holds.drop_at(place)
    state = {name: value for name, value in said(place).items() if name != "id"}
    (place / "pullonce.json").write_text(json.dumps(state))
    holds.put(msgspec.structs.replace(known, id=""))


@pytest.fixture(params=["with an id", "of a version before"])
def old(request: pytest.FixtureRequest) -> bool:
    return bool(request.param != "with an id")


def test_a_copy_is_a_bundle_of_its_own(shelf: Shelf, tmp_path: Path, old: bool) -> None:
    one = stopped(shelf, APP, tmp_path / "one")
    if old:
        as_before(shelf, one)
    other, third = copied(one, tmp_path / "other"), copied(one, tmp_path / "third")
    for _ in range(2):
        assert shelf.say("bundle", "--remount", other)[0] == 0
    assert shelf.held() == [str(one), str(other)]
    assert said(other)["id"] != said(one).get("id")
    assert shelf.say("bundle", "--remount", one)[0] == 0
    assert shelf.say("unbundle", third)[0] == 0, "which was never mounted"
    assert shelf.held() == [str(one), str(other)]
    assert shelf.say("unbundle", other)[0] == 0
    assert (shelf.held(), (one / "rootfs" / "etc" / "app").read_bytes()) == ([str(one)], b"fresh")
    assert shelf.say("unbundle", one)[0] == 0
    assert (shelf.held(), list(tmp_path.iterdir())) == ([], [])


def test_one_that_was_moved_keeps_its_layers_whatever_is_made_where_it_was(shelf: Shelf, tmp_path: Path, old: bool) -> None:
    one, other = stopped(shelf, APP, tmp_path / "one"), tmp_path / "other"
    if old:
        as_before(shelf, one)
    one.rename(other)
    code, _, err = shelf.say("bundle", BARE, one)
    assert code == 1 and f"keeps the layers of a bundle of {APP}" in err and "--remount" in err and err.count("\n") == 1
    assert (one.exists(), shelf.held()) == (False, [str(one)])
    assert shelf.say("bundle", "--remount", other)[0] == 0
    shelf.bundle(BARE, one)
    assert shelf.held() == [str(one), str(other)]
    assert shelf.say("bundle", "--remount", other, one)[0] == 0
    assert shelf.say("unbundle", other)[0] == 0
    assert shelf.held() == [str(one)]
    assert shelf.say("unbundle", one)[0] == 0
    assert shelf.held() == []


def test_two_that_changed_places(shelf: Shelf, tmp_path: Path) -> None:
    one, other = stopped(shelf, APP, tmp_path / "one"), stopped(shelf, BARE, tmp_path / "other")
    for before, behind in ((one, tmp_path / "aside"), (other, one), (tmp_path / "aside", other)):
        before.rename(behind)
    assert "mounted" not in shelf.say("bundles")[1].replace("not mounted", "")
    assert shelf.say("bundles")[1].count(" gone") == 2
    assert shelf.say("bundle", "--remount", one, other)[0] == 0
    kept = {each.directory: each.reference for each in BundleHolds(shelf.store).all()}
    assert kept == {str(one): BARE, str(other): APP}
    assert shelf.say("unbundle", one, other)[0] == 0
    assert shelf.held() == []


def test_a_link_left_behind_makes_no_copy(shelf: Shelf, tmp_path: Path) -> None:
    one, other = stopped(shelf, APP, tmp_path / "one"), tmp_path / "other"
    one.rename(other)
    one.symlink_to(other)
    known = said(other)["id"]
    assert shelf.say("bundle", "--remount", one)[0] == 0
    assert (shelf.held(), said(other)["id"]) == ([str(other)], known)


def test_what_lies_where_a_bundle_was_is_not_touched_when_that_is_let_go(shelf: Shelf, tmp_path: Path) -> None:
    one = stopped(shelf, APP, tmp_path / "one")
    shutil.rmtree(one)
    (one / "overlay").mkdir(parents=True)
    for file in (one / "config.json", one / "overlay" / "mine", one / "notes"):
        file.write_text("mine")
    assert shelf.say("unbundle", one)[0] == 0
    assert shelf.held() == []
    assert (one / "config.json").read_text() == (one / "overlay" / "mine").read_text() == "mine"


@pytest.mark.parametrize("options", [("--user", "stranger"), ("--uidmap", "0:200000:65536")])
def test_what_an_unfinished_one_kept_in_another_store_is_let_go(shelf: Shelf, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Also where making it again fails before anything is begun: the root of a user namespace does not get there."""
    place, store = stopped(shelf, APP, tmp_path / "bundle"), open_store(tmp_path / "home" / "stores" / "other").root
    (known,) = BundleHolds(shelf.store).at(place)
    assert BundleHolds(shelf.store).drop_at(place)
    elsewhere = msgspec.structs.replace(known, store=str(store))
    BundleHolds(store).put(elsewhere)
    (place / "config.json").unlink()
    (place / "pullonce.json").write_bytes(encode(elsewhere))
    tmp_path.chmod(0o700)
    assert shelf.say("bundle", APP, place, *options)[0] == 1
    assert (BundleHolds(store).all(), shelf.held(), place.exists()) == ([], [], False)


# -- what strangers say ----------------------------------------------------------------------------------------------------


def strange(place: Path, kind: str) -> None:
    """Have somebody else say what a bundle is made of."""
    state = place / "pullonce.json"
    if kind == "a directory of another's":
        os.chown(place, 1000, 1000)
    elif kind == "a file of another's":
        os.chown(state, 1000, 1000)
    elif kind == "a link":
        state.rename(place.with_name("elsewhere"))
        state.symlink_to(place.with_name("elsewhere"))
    else:
        state.unlink()
        os.mkfifo(state)


@pytest.mark.parametrize("kind", ["a directory of another's", "a file of another's", "a link", "a pipe"])
def test_nothing_is_done_on_the_word_of_a_stranger(shelf: Shelf, tmp_path: Path, kind: str) -> None:
    place, store = stopped(shelf, APP, tmp_path / "bundle"), tmp_path / "stores" / "other"
    named = {**said(place), "store": str(store)}
    (place / "pullonce.json").write_text(json.dumps(named))
    store.mkdir(0o755, parents=True)
    strange(place, kind)
    before = read_tree(tmp_path)
    for words in (["bundle", "--remount"], ["unbundle"], ["bundle", APP]):
        code, _, err = shelf.say(*words, place)
        assert code == 1 and err.count("\n") == 1, err
        assert any(told in err for told in ("belongs to user 1000", "cannot be read", "no ordinary file")), err
    assert (read_tree(tmp_path), shelf.held()) == (before, [str(place)])
    shutil.rmtree(place)  # so that it is let go by name


def test_a_store_that_is_gone_is_made_by_a_pull_only(shelf: Shelf, tmp_path: Path) -> None:
    place, store = stopped(shelf, APP, tmp_path / "bundle"), tmp_path / "gone" / "stores" / "other"
    (place / "pullonce.json").write_text(json.dumps({**said(place), "store": str(store)}))
    code, _, err = shelf.say("bundle", "--remount", "--policy", "never", place)
    assert code == 1 and "is no store any more" in err
    assert shelf.say("unbundle", place)[0] == 0
    assert list(tmp_path.iterdir()) == []


# -- directories that were there before ------------------------------------------------------------------------------------


@pytest.fixture(params=[0o755, 0o2775, 0o1777, 0o700])
def there(request: pytest.FixtureRequest, reachable: Path) -> Path:
    """A directory that others use, of a group of its own."""
    made = reachable / "there"
    made.mkdir()
    os.chown(made, -1, 1003)
    made.chmod(request.param)
    return made


def access(place: Path) -> tuple[int, int]:
    return place.stat().st_mode, place.stat().st_gid


def test_a_directory_that_is_refused_stays_open(shelf: Shelf, there: Path) -> None:
    before = access(there)
    (there / "file").touch()
    assert "is not empty" in shelf.say("bundle", APP, there)[2]
    (there / "file").unlink()
    (there / "rootfs").mkdir()
    os.chown(there / "rootfs", 1000, 1000)
    assert shelf.say("bundle", APP, there)[0] == 1
    (there / "rootfs").rmdir()
    code, _, err = shelf.say("bundle", APP, there, "--user", "stranger")
    assert code == 1 and "'stranger'" in err
    assert (access(there), shelf.held()) == (before, [])
    os.chown(there, 1000, -1)
    before = access(there)
    assert "belongs to user 1000" in shelf.say("bundle", APP, there)[2]
    assert access(there) == before


@pytest.mark.parametrize("options", [(), ("--uidmap", "0:200000:65536")])
def test_a_directory_is_open_again_behind_its_bundle(shelf: Shelf, there: Path, options: tuple[str, ...]) -> None:
    before = access(there)
    shelf.bundle(APP, there, *options)
    assert not there.stat().st_mode & 0o027
    assert shelf.say("unbundle", there)[0] == 0
    assert (access(there), list(there.iterdir())) == (before, [])

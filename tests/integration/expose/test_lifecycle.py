"""Images in the view and out of it: what is held, what is refused, what a death leaves, what may happen at once."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from pullonce.failpoints import VIEW_STEPS
from tests.integration.expose.conftest import Place, picture
from tests.support.command import pullonce, start
from tests.support.images import Image, image, layer
from tests.support.layers import entry, tar
from tests.support.podman import Podman

_numbers = count(100)


def fresh(place: Place) -> str:
    """A small image that nobody else uses, pulled."""
    number = next(_numbers)
    return place.pulled(f"fresh/{number}", small(number))


def small(number: int) -> Image:
    return image([layer(tar(entry("etc", "dir"), entry("etc/number", content=b"%d" % number))), layer(tar(entry("one")))])


def listed(place: Place) -> set[str]:
    return {each["reference"] for each in json.loads(place.did("images", "--json"))}


def test_what_is_exposed_is_held(place: Place) -> None:
    reference, other = fresh(place), fresh(place)
    place.did("expose", reference)
    assert place.holds()[reference] == "shown"
    assert reference in place.did("expose")
    assert json.loads(place.did("expose", "--json"))["store"] == str(place.view)
    code, said = place.tried("rm", reference)
    assert code == 1 and "unexpose" in said and reference in listed(place)
    place.did("gc", "--keep-days", "0")
    assert reference in listed(place) and other not in listed(place)
    assert reference in place.shows()
    assert "for podman" in place.did("status")
    place.did("unexpose", reference)
    assert reference not in place.holds() and reference not in place.shows()
    place.did("rm", reference)
    place.did("gc")
    assert place.tried("unexpose", reference) == (1, f"pullonce: {reference} is not exposed\n")


def test_what_cannot_be_shown_is_refused(place: Place) -> None:
    fetched = place.pulled("fetched", small(1), "1", "--no-unpack")
    code, said = place.tried("expose", fetched)
    assert code == 1 and "--no-unpack" in said
    reference = place.registry.push("expose/absent", "1", small(2))
    code, said = place.tried("expose", reference)
    assert code == 1 and "--pull" in said
    assert not {fetched, reference} & (place.shows() | place.holds().keys())
    place.did("expose", "--pull", reference)
    assert reference in place.shows()
    config = small(3).document["config"] | {"mediaType": "application/vnd.example.chart+json"}
    chart = place.registry.push("expose/chart", "1", replace(small(3), content=with_config(small(3), config)))
    place.did("pull", "-q", chart, "--no-unpack")
    code, said = place.tried("expose", chart)
    assert code == 1 and "artifact" in said
    assert place.tried("unexpose")[0] == 2
    place.did("unexpose", reference)


def with_config(made: Image, config: object) -> bytes:
    return json.dumps({**made.document, "config": config}).encode()


def test_all(place: Place) -> None:
    reference = fresh(place)
    place.did("expose", "--all")
    assert reference in place.shows()
    before = (place.view / "overlay-layers" / "layers.lock").read_bytes()
    place.did("expose", "--all")
    assert (place.view / "overlay-layers" / "layers.lock").read_bytes() == before, "nothing was written"
    place.did("unexpose", "--all")
    assert place.shows() == set() and place.holds() == {}
    assert not list((place.view / "overlay").glob("[!l]*")) and not list((place.view / "facts").iterdir())
    assert place.podman.images() == {}


def test_a_newer_image_takes_the_name(place: Place) -> None:
    number = next(_numbers)
    old = small(number)
    reference = place.pulled("moving", old)
    place.did("expose", reference)
    place.podman.did("create", "--pull=never", "--name", "waits", reference, "nothing")
    new = small(next(_numbers))
    assert place.pulled("moving", new) == reference
    assert f"sha256:{place.podman.images()[reference]['Id']}" == old.document["config"]["digest"], "as it was exposed"
    assert "kept without a name for the container waits" in place.did("expose", reference)
    assert f"sha256:{place.podman.images()[reference]['Id']}" == new.document["config"]["digest"]
    root = Path(place.podman.did("mount", "waits").strip())
    place.did("gc", "--partial-hours", "0")
    assert (root / "etc/number").read_bytes() == b"%d" % number
    place.podman.did("rm", "waits")
    place.did("expose", reference)
    assert old.document["config"]["digest"][7:] not in (place.view / "overlay-images/images.json").read_text()
    place.did("unexpose", reference)


def test_a_running_container_keeps_its_layers(place: Place) -> None:
    number = next(_numbers)
    reference = place.pulled("running", picture(number, 2))
    place.did("expose", reference)
    running = place.podman.running(reference, "sh", "-c", "read nothing </dev/null; busybox sleep 1000; true")
    try:
        while not json.loads(place.podman.did("ps", "--format", "json")):
            time.sleep(0.05)
        name = json.loads(place.podman.did("ps", "--format", "json"))[0]["Id"]
        assert place.tried("unexpose", reference)[0] == 1
        place.did("unexpose", "--force", reference)
        place.did("rm", reference)
        assert "is mounted" in place.did("gc", "--partial-hours", "0")
        assert place.podman.did("exec", name, "cat", "/etc/number") == str(number)
        place.podman.did("kill", name)
    finally:
        running.kill()
        running.communicate()


@pytest.fixture(scope="module")
def trio(place: Place) -> tuple[str, str, str]:
    return fresh(place), fresh(place), fresh(place)


@pytest.mark.parametrize("step", VIEW_STEPS)
def test_a_death_at(place: Place, trio: tuple[str, str, str], step: str) -> None:
    """podman reads the view at every moment, and whoever changes it next leaves nothing over."""
    stays, comes, goes = trio
    place.did("expose", stays, goes)
    place.killed_at(step, *(("unexpose", goes) if step == "view.leaving" else ("expose", comes)))
    assert place.shows() == set(place.podman.images()) >= {stays}
    place.did("unexpose", stays)
    assert stays not in place.shows() and set(place.holds().values()) <= {"shown"}
    assert set(place.podman.images()) == place.shows() == set(place.holds())
    assert (goes in place.shows()) == (step != "view.leaving")
    place.did("expose", comes)
    assert place.shows() >= {comes}
    place.did("unexpose", "--all")
    assert [each.name for each in (place.view / "overlay-layers").iterdir() if each.suffix == ".gz"] == []


@pytest.mark.parametrize("step", ["view.synced", "view.layers", "view.images", "view.listed"])
def test_a_death_while_it_is_taken_out(place: Place, trio: tuple[str, str, str], step: str) -> None:
    stays, _, goes = trio
    place.did("expose", stays, goes)
    place.killed_at(step, "unexpose", goes)
    assert place.shows() == set(place.podman.images()) >= {stays}
    place.did("expose", stays)
    assert place.shows() == set(place.podman.images()) == {stays} == set(place.holds())
    place.did("unexpose", "--all")


def test_many_at_once(place: Place) -> None:
    """Exposures, withdrawals and readers beside each other, while others remove and collect."""
    made = picture(next(_numbers), 3)
    steady = place.pulled("steady", made)
    others = [fresh(place) for _ in range(4)]
    place.did("expose", steady, others[0])
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            pullonce("gc", "--partial-hours", "0", home=place.home)
            pullonce("rm", others[3], home=place.home)

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        commands = [start("expose", each, home=place.home) for each in others[1:3]] + [
            start("unexpose", others[0], home=place.home)
        ]
        runs = [place.podman.running(steady, "cat", "/etc/number") for _ in range(4)]
        said = [each.communicate(timeout=100) for each in (*commands, *runs)]
        assert [each.returncode for each in (*commands, *runs)] == [0] * 7, said
    finally:
        ended.set()
        churning.join()
    assert place.shows() >= {steady, *others[1:3]} and others[0] not in place.shows()
    assert place.podman.run(steady, "cat", "/etc/layer2")
    place.did("unexpose", "--all")


def test_a_reader_is_waited_for(place: Place) -> None:
    reference = fresh(place)
    place.did("expose", reference)
    lock = place.view / "overlay-layers" / "layers.lock"
    before, inode = lock.read_bytes(), lock.stat().st_ino
    with lock.open("rb") as file:
        fcntl.lockf(file, fcntl.LOCK_SH)
        waiting = start("unexpose", reference, home=place.home)
        assert waiting.stderr is not None
        assert "waiting for whoever reads" in waiting.stderr.readline()
        assert reference in place.shows() and waiting.poll() is None
    assert waiting.wait(30) == 0
    waiting.communicate()
    assert reference not in place.shows()
    assert lock.stat().st_ino == inode and len(lock.read_bytes()) == 64 and lock.read_bytes() != before


def test_another_one_that_changes_the_view_is_waited_for(place: Place) -> None:
    reference = fresh(place)
    place.did("expose", reference)
    with (place.view / "lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = start("unexpose", reference, home=place.home)
        assert waiting.stderr is not None
        assert "waiting for another one" in waiting.stderr.readline()
        assert reference in place.shows()
    assert waiting.wait(30) == 0
    waiting.communicate()
    assert reference not in place.shows()


def test_a_store_that_was_damaged_or_moved(place: Place, tmp_path: Path) -> None:
    reference, other = fresh(place), fresh(place)
    place.did("expose", reference, other)
    record = next(each for each in place.content.images.all() if each.reference == reference)
    place.content.layout.record(record.chain_ids[1]).unlink()
    assert place.tried("verify", "--blobs-only")[0] == 1
    said = place.tried("expose", other)[1]
    assert "left out until it is mended" in said and "lacks a layer" in said
    assert place.shows() == set(place.podman.images()) and reference not in place.shows()
    place.did("verify", "--blobs-only", "--repair")
    place.did("expose", other)
    assert reference in place.podman.images()
    for path in (place.view / "overlay").glob("*/diff"):  # as if it had lain elsewhere
        target = path.readlink()
        path.unlink()
        path.symlink_to(tmp_path / target.name)
    place.did("expose", "--all")
    assert place.shows() == set(place.podman.images())
    place.did("unexpose", "--all")


def test_one_that_is_damaged_does_not_keep_others_out(place: Place) -> None:
    damaged, sound = fresh(place), fresh(place)
    record = next(each for each in place.content.images.all() if each.reference == damaged)
    manifest = json.loads(place.content.read(record.manifest.digest, 1 << 20))
    blob = place.content.blob_path(manifest["layers"][0]["digest"])
    kept = blob.read_bytes()
    blob.write_bytes(kept[:-9] + bytes(9))
    code, said = place.tried("expose", damaged, sound)
    assert code == 1 and "cannot be shown" in said and place.shows() == set() == set(place.holds())
    code, said = place.tried("expose", "--all")
    assert code == 0 and f"left out: {damaged}" in said
    assert sound in place.shows() and damaged not in place.shows() | place.holds().keys()
    blob.write_bytes(kept)
    place.did("expose", "--all")
    assert {damaged, sound} <= set(place.podman.images())
    hold = next((place.store / "holds" / "podman").glob("[!.]*"))
    written = json.loads(hold.read_bytes())
    hold.write_text(json.dumps({**written, "note": "of another version"}))
    code, said = place.tried("unexpose", "--all")
    assert code == 1 and str(hold) in said
    hold.unlink()
    place.did("unexpose", "--all")


def test_the_name_of_the_storage_is_told(place: Place) -> None:
    reference = fresh(place)
    done = pullonce("expose", reference, home=place.home, more={"CONTAINERS_STORAGE_CONF": "/dev/null"})
    assert f'additionalimagestores = ["{place.view}"]' in done.stderr
    assert "additionalimagestores" not in place.tried("expose", reference)[1]
    with Podman(place.view) as podman:
        assert reference in podman.images()
    place.did("unexpose", reference)

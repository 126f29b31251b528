"""The list of images: found by reference at the same cost however long it is, and made anew where it is gone or damaged."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pullonce.store import entries
from pullonce.store.content import ContentStore, open_store
from pullonce.store.images import ImageRecord, Images
from pullonce.store.layout import Layout
from pullonce.store.snapshots import Snapshots
from schemas.oci import ChainID, Descriptor, Digest

FOREIGN = {"mediaType": "x", "digest": "sha256:" + "f" * 64, "size": 1, "annotations": {"a": "b"}}


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return open_store(tmp_path / "store", sync=False)


def image(reference: str, platform: str = "linux/amd64", number: int = 1, chain: int = 0) -> ImageRecord:
    digest = Digest(f"sha256:{number:064x}")
    manifest = Descriptor(media_type=entries.parsed(entries.EMPTY_INDEX)[0]["mediaType"], digest=digest, size=7)
    chains = tuple(ChainID(f"sha256:{each:064x}") for each in range(chain))
    return ImageRecord(
        reference=reference, platform=platform, digest=digest, manifest=manifest, image_id=digest, chain_ids=chains
    )


def written_by_another_tool(content: ContentStore, *found: dict[str, object]) -> None:
    """As skopeo does: a new file, on one line."""
    draft = content.root / "draft"
    draft.write_text(json.dumps({"schemaVersion": 2, "manifests": list(found)}))
    draft.replace(content.root / "index.json")


def test_it_is_found_without_reading_the_list(content: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read for one reference does not grow with the number of others."""
    for number in range(50):
        content.images.record(image(f"x/a:{number}", number=number))
    read: list[str] = []
    real = Path.read_bytes

    def counted(path: Path) -> bytes:
        found = real(path)
        read.append(path.name)
        return found

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert content.images.named("x/a:7") == [image("x/a:7", number=7)]
    assert content.images.named("x/none:7") == []
    assert "index.json" not in read and len(read) == 3


def test_other_tools_have_the_last_word(content: ContentStore) -> None:
    content.images.record(image("x/a:1"))
    kept = entries.entry_of(image("x/b:1", number=2), "x/b:1")
    written_by_another_tool(content, FOREIGN, kept)
    for _ in range(2):
        assert content.images.named("x/a:1") == [] and content.images.named("x/b:1") == [image("x/b:1", number=2)]
        with content.images.hold():
            content.images.mend()
    content.images.record(image("x/c:1", number=3))
    found = json.loads((content.root / "index.json").read_text())["manifests"]
    assert found[:2] == [FOREIGN, kept] and len(found) == 3
    assert [each.digest for each in content.images.foreign()] == [FOREIGN["digest"]]


def test_a_name_that_another_entry_has_is_not_given_twice(content: ContentStore) -> None:
    taken = FOREIGN | {"annotations": {entries.REF_NAME: "x/a:1"}}
    written_by_another_tool(content, taken)
    content.images.record(image("x/a:1"))
    content.images.record(image("x/a:1", "linux/arm64", 2))
    found = json.loads((content.root / "index.json").read_text())["manifests"]
    assert [entries.name_of(each) for each in found] == ["x/a:1", "x/a:1+linux-amd64", "x/a:1+linux-arm64"]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "overwritten": lambda path: path.write_bytes(b"\0" * path.stat().st_size),
    "no list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text('{"manifests":null}'),
    "strange entries": lambda path: path.write_text('{"manifests":[1,"a"]}'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "not UTF-8": lambda path: path.write_bytes(b'{"manifests":["\xff"]}'),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_list_that_is_gone_or_damaged_is_made_anew(content: ContentStore, how: str) -> None:
    written_by_another_tool(content, FOREIGN)
    listed = [image("x/a:1", chain=3), image("x/a:1", "linux/arm64", 2), image("x/b:1", number=3)]
    for each in listed:
        content.images.record(each)
    path = content.root / "index.json"
    before = json.loads(path.read_text())["manifests"]
    DAMAGE[how](path)
    # Whoever only reads finds what was there, before anybody mends it.
    assert content.images.named("x/a:1") == listed[:2] and content.images.find("x/b:1", "linux/amd64") == listed[2]
    assert sorted(content.images.all(), key=str) == sorted(listed, key=str)
    content.images.record(image("x/c:1", number=4))
    after = json.loads(path.read_text())["manifests"]
    assert sorted(after[:-1], key=str) == sorted(before, key=str)
    assert content.images.named("x/c:1") == [image("x/c:1", number=4)]
    assert (content.root / "index.json.damaged").exists() == (how != "removed")


def test_entries_that_say_nothing_of_use_are_kept_and_name_nothing(content: ContentStore) -> None:
    strange = [{}, {"digest": 5}, {"mediaType": "x", "digest": "sha256:" + "a" * 64, "size": "1", "annotations": None}]
    written_by_another_tool(content, *strange)
    content.images.record(image("x/a:1"))
    assert content.images.all() == [image("x/a:1")] and content.images.foreign() == []
    assert json.loads((content.root / "index.json").read_text())["manifests"][:3] == strange


@pytest.mark.parametrize("lost", ["state", "one", "all", "cut"])
def test_an_index_that_is_gone_or_damaged_is_made_anew(content: ContentStore, lost: str) -> None:
    """A power cut may take it, since it is not synced: then the list says what is listed."""
    for number in range(3):
        content.images.record(image(f"x/a:{number}", number=number))
    place = content.root / "images"
    files = [each for each in place.iterdir() if each.name not in ("state", "others")]
    match lost:
        case "state":
            (place / "state").unlink()
        case "one":  # with the boot in which it was written
            state = json.loads((place / "state").read_text())
            (place / "state").write_text(json.dumps(state | {"boot": "another"}))
            files[0].unlink()
        case "all":
            for each in place.iterdir():
                each.unlink()
        case "cut":
            for each in files:
                each.write_bytes(each.read_bytes()[:-5])
    for again in (content, open_store(content.root, sync=False)):
        for number in range(3):
            assert again.images.named(f"x/a:{number}") == [image(f"x/a:{number}", number=number)]


def test_a_death_between_the_two_leaves_what_the_list_says(content: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    content.images.record(image("x/a:1"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda path, target: 1 / 0 if target.name == "index.json" else path.rename(target))
        with pytest.raises(ZeroDivisionError):
            content.images.record(image("x/a:1", number=2))
    content.images.record(image("x/b:1", number=3))
    assert content.images.named("x/a:1") == [image("x/a:1")]
    assert content.images.all() == [image("x/a:1"), image("x/b:1", number=3)]


def test_the_index_says_what_the_list_says_whatever_happens(content: ContentStore) -> None:
    """Anything that may be done to the list, in any order, by us and by others."""
    chance = random.Random(7)
    references = [f'x/"odd"\\ü{number}:1' for number in range(6)]
    for _ in range(150):
        match chance.randrange(6):
            case 0 | 1 | 2:
                platform = chance.choice(("linux/amd64", "linux/arm64"))
                content.images.record(image(chance.choice(references), platform, chance.randrange(9)))
            case 3:
                with content.images.hold():
                    content.images.remove(content.images.named(chance.choice(references)))
            case 4:
                found = json.loads((content.root / "index.json").read_text())["manifests"]
                chance.shuffle(found)
                written_by_another_tool(content, *found[: chance.randrange(len(found) + 1)], FOREIGN)
            case _:
                (content.root / "index.json").unlink()
                with content.images.hold():
                    content.images.mend()
        others = Images(content.root)
        listed = others.all()
        for reference in references:
            assert others.named(reference) == [each for each in listed if each.reference == reference]


def test_a_snapshot_without_its_tree_is_none(content: ContentStore) -> None:
    chain_id, layout = ChainID("sha256:" + "c" * 64), Layout(content.root)
    layout.tree(chain_id).mkdir()
    layout.snapshot(chain_id).mkdir()
    layout.record(chain_id).write_text("{}")
    assert Snapshots(content.root).has(chain_id)
    layout.tree(chain_id).rename(layout.trees / "elsewhere")
    assert not Snapshots(content.root).has(chain_id)
    layout.tree(chain_id).symlink_to("nowhere")
    assert not Snapshots(content.root).has(chain_id)

"""What containers/storage is told of layers and images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from pullonce.expose.records import (
    NEVER,
    LayerFacts,
    created,
    documents,
    file_name,
    image_record,
    layer_record,
    lowers,
    names,
    stack,
)
from pullonce.expose.records import Image as ShownImage
from pullonce.expose.shown import Shown, twins
from pullonce.expose.users import Users, graph_roots, reads
from pullonce.oci.digest import chain_ids, digest_bytes
from pullonce.store.images import ImageRecord
from pullonce.store.layout import short_name
from schemas.oci import Descriptor, DiffID, Digest


def digest(what: str) -> Digest:
    return digest_bytes(what.encode())


def record(reference: str, platform: str = "linux/amd64", image: str = "") -> ImageRecord:
    manifest = Descriptor(media_type="m", digest=digest(f"{platform}{image}"), size=1)
    return ImageRecord(
        reference=reference,
        platform=platform,
        digest=digest("index"),
        manifest=manifest,
        image_id=digest(f"c{platform}{image}"),
    )


def test_layers_have_the_ids_that_podman_computes() -> None:
    diff_ids = [DiffID(digest(name)) for name in "abc"]
    blobs = [Descriptor(media_type="m", digest=digest(f"blob {name}"), size=1) for name in "abc"]
    found = stack(chain_ids(diff_ids), diff_ids, blobs, short_name)
    a, b, c = (each.partition(":")[2] for each in diff_ids)
    second = hashlib.sha256(f"{a}+{b}".encode()).hexdigest()
    assert [each.id for each in found] == [a, second, hashlib.sha256(f"{second}+{c}".encode()).hexdigest()]
    assert [each.parent for each in found] == ["", a, second]
    # A collector finds a mounted layer by this name.
    assert [each.link for each in found] == [short_name(each) for each in chain_ids(diff_ids)]
    assert lowers(found) == {a: "", second: f"l/{found[0].link}", found[2].id: f"l/{found[1].link}:l/{found[0].link}"}


def test_a_name_stands_for_one_image() -> None:
    arm, amd = record("r.example/a:1", "linux/arm64"), record("r.example/a:1")
    given = names([arm, amd], "linux/amd64")
    assert given[amd.reference, amd.platform] == "r.example/a:1"
    assert given[arm.reference, arm.platform] == f"r.example/a@{arm.manifest.digest}"
    assert names([arm, amd], "linux/arm64")[arm.reference, arm.platform] == "r.example/a:1"
    assert names([arm], "linux/amd64") == {(arm.reference, arm.platform): "r.example/a:1"}
    tagged = record(f"r.example/a:1@{digest('x')}")
    assert list(names([tagged], "linux/amd64").values()) == [f"r.example/a@{digest('x')}"]
    many = [record(name, platform) for name in ("r.example/a:1", f"r.example/a@{digest('i')}") for platform in ("a/b", "a/c")]
    owners: dict[str, set[str]] = {}
    for (reference, platform), name in names(many, "linux/amd64").items():
        image = next(each for each in many if (each.reference, each.platform) == (reference, platform))
        owners.setdefault(name, set()).add(image.image_id)
    assert all(len(each) == 1 for each in owners.values()) and len(owners) == 3


@pytest.mark.parametrize(
    "said, told",
    [
        ("2026-11-28T06:00:00Z", "2026-11-28T06:00:00Z"),
        ("2026-11-28T06:00:00.123456789+02:00", "2026-11-28T06:00:00.123456789+02:00"),
        *((odd, NEVER) for odd in ("", None, 5, "yesterday", "2026-13-01T00:00:00Z", "2026-11-28T06:00:60Z", "2026-11-28")),
        *((odd, NEVER) for odd in ("0000-01-01T00:00:00Z", "2026-11-28T06:00:00", "2026-11-28t06:00:00Z")),
        *((odd, NEVER) for odd in ("2026-02-30T00:00:00Z", "2026-11-28T06:00:00Z\n")),
        *((odd, NEVER) for odd in ("2026-11-28T06:00:00.Z", "2026-11-28T06:00:00+25:00", "٢٠٢٦-11-28T06:00:00Z")),
    ],
)  # fmt: skip
def test_a_time_that_go_would_not_read_is_left_out(said: object, told: str) -> None:
    assert created(said) == told


def test_files_of_documents() -> None:
    assert file_name("manifest") == "manifest"
    assert file_name("sha256:ab") == "=c2hhMjU2OmFi"
    found = documents([b"one", b"two"], [b"index"], (digest("c"), b"config"))
    assert found["manifest"] == b"one"
    assert set(found) == {"manifest", digest("c"), *(f"manifest-{digest(each)}" for each in ("one", "two", "index"))}


def test_records() -> None:
    diff_id = DiffID(digest("a"))
    layer = stack(chain_ids([diff_id]), [diff_id], [Descriptor(media_type="m", digest=digest("b"), size=3)], short_name)[0]
    facts = LayerFacts(
        diff_id=diff_id, blob=digest("b"), blob_size=3, size=9, compression="zstd", uids=[0, 5], gids=[0], created=NEVER
    )
    told = layer_record(layer, facts)
    assert "parent" not in told
    assert (told["compression"], told["diff-size"], told["compressed-size"], told["uidset"]) == (4, 9, 3, [0, 5])
    image = image_record(ShownImage("i" * 64, ("n",), digest("m"), layer.id, {"manifest": b"12"}, NEVER))
    assert image["big-data-sizes"] == {"manifest": 2} and image["big-data-digests"] == {"manifest": digest("12")}


def test_of_two_images_of_one_name_that_is_older_which_the_store_does_not_list() -> None:
    old, new = (Shown(image=record("r.example/a:1", image=each)) for each in ("old", "new"))
    for there in ([old, new], [new, old]):
        assert twins(there, lambda image: image == new.image) == [old]
    assert twins([old, new.now("replaced")], lambda image: True) == []


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_what_is_built_on_a_layer(tmp_path: Path) -> None:
    write(
        tmp_path / "overlay-layers/layers.json", [{"id": "up", "parent": "mid"}, {"id": "mid", "parent": "ours"}, {"id": "x"}]
    )
    write(tmp_path / "overlay-layers/volatile-layers.json", [{"id": "rw", "parent": "ours"}])
    write(
        tmp_path / "overlay-images/images.json",
        [{"id": "1" * 64, "names": ["built"], "layer": "up"}, {"id": "2", "layer": "x"}],
    )
    write(tmp_path / "overlay-containers/volatile-containers.json", [{"id": "3" * 64, "layer": "rw"}])
    users = Users([tmp_path, tmp_path / "none"], as_root=True)
    assert users.of({"ours"}) == [f"the container {'3' * 12}", "the image built"]
    assert users.of({"other"}) == users.of(set()) == []
    write(tmp_path / "overlay-layers/layers.json", [{"id": "a", "parent": "b"}, {"id": "b", "parent": "a"}])
    write(tmp_path / "overlay-images/images.json", [{"id": "1", "layer": "a"}])
    assert users.of({"ours"}) == [f"the container {'3' * 12}"], "a circle ends"
    (tmp_path / "overlay-images/images.json").write_text("no list")
    assert Users([tmp_path], as_root=True).of({"a"}) == []


def test_where_podman_looks(tmp_path: Path) -> None:
    conf = tmp_path / "storage.conf"
    environ = {"CONTAINERS_STORAGE_CONF": str(conf), "HOME": str(tmp_path)}
    assert not reads(environ, Path("/view"))
    conf.write_text('[storage]\ngraphroot = "/data"\n[storage.options]\nadditionalimagestores = ["/other", "/view"]\n')
    assert Path("/data") in graph_roots(environ) and reads(environ, Path("/view")) and not reads(environ, Path("/third"))
    conf.write_text("storage = 5")
    assert not reads(environ, Path("/view")) and graph_roots(environ)


def test_a_shown_image_is_written_as_json() -> None:
    shown = Shown(image=record("r.example/a:1"))
    assert msgspec.json.decode(msgspec.json.encode(shown), type=Shown) == shown

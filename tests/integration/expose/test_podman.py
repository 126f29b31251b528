"""What podman, buildah and skopeo do with images that are exposed."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.integration.expose.conftest import Place, picture
from tests.support.awkward import BASE_ENTRIES, UPPER
from tests.support.images import Image, Layer, image, index, layer
from tests.support.layers import Image as Layers
from tests.support.layers import entry, tar, umoci_unpack
from tests.support.podman import Podman
from tests.support.trees import differences, read_tree

LAYERS = 3


@pytest.fixture(scope="module")
def made() -> Image:
    return picture(1, LAYERS)


@pytest.fixture(scope="module")
def exposed(place: Place, made: Image) -> str:
    """A reference that is exposed."""
    reference = place.pulled("app", made)
    place.did("expose", reference)
    return reference


def test_podman_lists_and_runs_it(place: Place, exposed: str, made: Image) -> None:
    listed = place.podman.images()[exposed]
    assert listed["ReadOnly"] is True
    assert f"sha256:{listed['Id']}" == made.document["config"]["digest"]
    assert f"{exposed.rpartition(':')[0]}@{made.digest}" in listed["RepoDigests"]
    assert place.podman.run(exposed, "cat", "/etc/number") == "1"
    by_digest = f"{exposed.rpartition(':')[0]}@{made.digest}"
    assert place.podman.run(by_digest, "sh", "-c", "echo written >/etc/number && cat /etc/number") == "written\n"
    assert place.podman.run(made.document["config"]["digest"][7:19], "cat", "/etc/number") == "1", "nothing is written into it"


def test_twenty_run_at_once(place: Place, exposed: str) -> None:
    running = [place.podman.running(exposed, "cat", "/etc/number") for _ in range(20)]
    ended = [(each.communicate(timeout=100), each.returncode) for each in running]
    assert [(out, code) for (out, _), code in ended] == [("1", 0)] * 20, [err for (_, err), code in ended if code]


def test_podman_pull_fetches_no_layer(place: Place, exposed: str) -> None:
    place.registry.forget()
    place.podman.did("pull", "-q", exposed)
    assert place.registry.counts()["GET blobs"] <= 1, "the config at the most"
    place.podman.did("rmi", exposed)
    assert place.podman.run(exposed, "cat", "/etc/number") == "1"


def test_what_is_saved_and_pushed_is_what_was_pulled(place: Place, exposed: str, made: Image, tmp_path: Path) -> None:
    config = made.document["config"]["digest"]
    diff_ids = json.loads(made.blobs[config])["rootfs"]["diff_ids"]
    place.podman.did("save", "-q", "--format", "oci-archive", "-o", tmp_path / "saved.tar", exposed)
    assert uncompressed(tmp_path / "saved.tar") == (config, diff_ids)
    for program, target in (("podman", "pushed/podman"), ("buildah", "pushed/buildah")):
        place.podman.did("push", "-q", exposed, f"docker://{place.registry.host}/{target}:1", program=program)
        copied = tmp_path / program
        copy = ("copy", "--insecure-policy", "--src-tls-verify=false", f"docker://{place.registry.host}/{target}:1")
        place.podman.did(*copy, f"dir:{copied}", program="skopeo")
        assert in_directory(copied) == (config, diff_ids)
    place.podman.did(
        "copy", "--insecure-policy", f"containers-storage:{exposed}", f"dir:{tmp_path / 'skopeo'}", program="skopeo"
    )
    assert in_directory(tmp_path / "skopeo") == (config, diff_ids)


def uncompressed(archive: Path) -> tuple[str, list[str]]:
    """Config digest and diffIDs of what is in an archive, as they are found."""
    with tarfile.open(archive) as opened:
        files = {each.name: opened.extractfile(each).read() for each in opened if each.isfile()}  # type: ignore[union-attr]
    manifest = json.loads(files[blob(json.loads(files["index.json"])["manifests"][0]["digest"])])
    return described(manifest, lambda digest: files[blob(digest)])


def in_directory(place: Path) -> tuple[str, list[str]]:
    """The same of a `dir:` of skopeo."""
    return described(json.loads((place / "manifest.json").read_bytes()), lambda digest: (place / digest[7:]).read_bytes())


def blob(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def described(manifest: dict[str, Any], read: Any) -> tuple[str, list[str]]:
    found = []
    for each in manifest["layers"]:
        content = read(each["digest"])
        if content[:2] == b"\x1f\x8b":
            content = subprocess.run(["gzip", "-dc"], input=content, capture_output=True, check=True).stdout
        found.append(layer(content, "plain").diff_id)
    return layer(read(manifest["config"]["digest"]), "plain").digest, found


def test_buildah_builds_upon_it(place: Place, exposed: str) -> None:
    container = place.podman.did("from", "--pull-never", exposed, program="buildah").strip()
    try:
        root = Path(place.podman.did("mount", container, program="buildah").strip())
        assert (root / "etc/number").read_text() == "1"
        (root / "etc/built").write_text("upon it")
        place.podman.did("umount", container, program="buildah")
        code, said = place.tried("unexpose", exposed)
        assert code == 1 and "container" in said and "--force" in said
        place.podman.did("commit", "-q", container, "localhost/built:1", program="buildah")
    finally:
        place.podman.did("rm", container, program="buildah")
    try:
        assert place.podman.run("localhost/built:1", "cat", "/etc/built", "/etc/number") == "upon it1"
        code, said = place.tried("unexpose", exposed)
        assert code == 1 and "image localhost/built:1" in said
        assert place.podman.run(exposed, "cat", "/etc/number") == "1"
    finally:
        place.podman.did("rmi", "localhost/built:1")


@pytest.mark.parametrize("compression", ["zstd", "plain", "gzip"])
def test_layers_however_they_are_stored(place: Place, tmp_path: Path, compression: Any) -> None:
    tars = [tar(*BASE_ENTRIES), *(tar(*entries) for entries in AWKWARD), tar()]
    made = image([layer(each, compression) for each in tars], docker=compression == "gzip")
    reference = place.pulled(f"awkward-{compression}", made)
    place.did("expose", reference)
    place.podman.did(
        "copy", "--insecure-policy", f"containers-storage:{reference}", f"dir:{tmp_path / 'copy'}", program="skopeo"
    )
    assert in_directory(tmp_path / "copy")[1] == [layer(each, "plain").diff_id for each in tars]
    if compression == "plain":
        theirs = umoci_unpack(Layers(tars), tmp_path)
        assert theirs is not None
        mounted = Path(place.podman.did("create", "--pull=never", reference, "nothing").strip())
        try:
            root = Path(place.podman.did("mount", str(mounted)).strip())
            ours, expected = read_tree(root), read_tree(theirs)
            del ours[b""], expected[b""]  # podman gives a container a root of its own
            assert differences(ours, expected) == []
        finally:
            place.podman.did("rm", str(mounted))


AWKWARD = [
    UPPER[what]
    for what in (
        "names through links of the layer below", "an opaque directory", "a hard link to a file below",
        "set-id bits, capabilities, attributes", "the same name again and again",
    )
]  # fmt: skip


def test_eighty_layers(place: Place, tmp_path: Path) -> None:
    """podman 4.3 gives the kernel all their names in one page: a link with a short name to the view leaves room for them."""
    config, *blobs = picture(3, 1).blobs.values()
    bottom = Layer(blobs[0], json.loads(config)["rootfs"]["diff_ids"][0])
    upper = [layer(tar(entry("etc/number", content=b"%d" % n), entry(f"n{n}", content=b"x"))) for n in range(79)]
    reference = place.pulled("eighty", image([bottom, *upper]))
    place.did("expose", reference)
    place.podman.did("copy", "--insecure-policy", f"containers-storage:{reference}", f"dir:{tmp_path / 'c'}", program="skopeo")
    assert in_directory(tmp_path / "c")[1] == [bottom.diff_id, *(each.diff_id for each in upper)]
    short = Path(tempfile.mkdtemp(prefix="v"))
    short.rmdir()
    short.symlink_to(place.view)
    try:
        with Podman(short) as podman:
            assert podman.run(reference, "cat", "/etc/number") == "78"
    finally:
        short.unlink()


def test_tags_platforms_and_shared_layers(place: Place) -> None:
    amd, arm = picture(7, 2), image([layer(tar(entry("only", content=b"arm")))], platform="linux/arm64")
    reference = place.registry.push("expose/both", "1", index([amd, arm]))
    place.did("pull", "-q", reference)
    place.did("pull", "-q", reference, "--platform", "linux/arm64")
    other = place.pulled("both", amd, tag="other")
    place.did("expose", reference, other)
    listed = place.podman.images()
    assert f"sha256:{listed[reference]['Id']}" == amd.document["config"]["digest"] == f"sha256:{listed[other]['Id']}"
    arm_name = f"{reference.rpartition(':')[0]}@{arm.digest}"
    assert any(f"sha256:{each['Id']}" == arm.document["config"]["digest"] for each in listed.values()), listed
    assert json.loads(place.podman.did("image", "inspect", arm_name))[0]["Architecture"] == "arm64"
    named = f"{reference.rpartition(':')[0]}@{index([amd, arm]).digest}"
    assert place.podman.run(named, "cat", "/etc/number") == "7", "by the digest of the index"
    place.did("unexpose", reference, "--platform", "linux/amd64")
    assert place.podman.run(other, "cat", "/etc/number") == "7"
    place.did("unexpose", "--platform", "linux/arm64", reference)
    assert set(place.podman.images()).isdisjoint({reference, arm_name})
    place.did("unexpose", other)

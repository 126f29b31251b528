"""What docker, podman, buildah and containerd load of ours and save again: the same config, and the same layers below whatever
each of them does to their compression."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from pullonce.cli.main import main
from pullonce.exchange.read import FoundImage
from pullonce.exchange.sources import DirectorySource, TarSource
from pullonce.store.content import ContentStore, open_store
from tests.compose.engine import Engine
from tests.integration.exchange.conftest import NAME, list_image
from tests.integration.exchange.test_export import containerd, needs, needs_root, run  # noqa: F401
from tests.support.images import Image, image, layer, tar_of
from tests.support.importing import load_into

APP = image(
    [
        layer(tar_of({"etc/app": b"one", "big": random.Random(3).randbytes(1_000_000)})),
        layer(tar_of({"etc/app": b"two"}), "plain"),
        layer(tar_of({"etc/more": b"three"}), "gzip"),
    ]
)
DOCKERS = image([layer(tar_of({"etc/app": b"docker"}))], docker=True)
OTHER = "registry.example/team/docker:1"
KINDS = {NAME: APP, OTHER: DOCKERS}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with an image in OCI's types, and one in docker's."""
    home = tmp_path_factory.mktemp("home")
    content = open_store(home / "stores" / "default")
    for name, given in KINDS.items():
        list_image(content, name, given)
    path = home / "images.tar"
    assert main(["export", "--home", str(home), *KINDS, "-o", str(path)]) == 0
    return path


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return open_store(tmp_path / "other" / "stores" / "default")


def check(store: ContentStore, path: Path, *, same_layers: bool) -> None:
    """Import what somebody saved, and compare.

    Args:
        same_layers: they are those that were exported, compressed as they were.
    """
    if path.is_dir():
        images = load_into(store, DirectorySource(path)).images
    else:
        with path.open("rb") as file:
            images = load_into(store, TarSource(file)).images
    assert {each.reference for each in images} == set(KINDS)
    for found in images:
        given = KINDS[found.reference]
        assert (found.config, found.platform) == (given.document["config"]["digest"], "linux/amd64")
        assert inflated(store, found) == json.loads(given.blobs[found.config])["rootfs"]["diff_ids"]
        if same_layers:
            assert layers_of(store, found) == given.layers


def layers_of(store: ContentStore, found: FoundImage) -> list[str]:
    return [each["digest"] for each in json.loads(store.read(found.manifest.digest, 1 << 20))["layers"]]


def inflated(store: ContentStore, found: FoundImage) -> list[str]:
    """The hashes of an image's layers as tars."""
    hashes = []
    for digest in layers_of(store, found):
        content = store.blob_path(digest).read_bytes()  # type: ignore[arg-type]
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        elif content[:4] == b"\x28\xb5\x2f\xfd":
            content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        hashes.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
    return hashes


@needs_root
@needs("dockerd")
def test_docker_loads_and_saves_it(exported: Path, store: ContentStore, tmp_path: Path) -> None:
    with Engine() as engine:
        said = engine.docker("load", "-i", str(exported))
        assert all(f"Loaded image: {name}" in said for name in KINDS)
        for name, given in KINDS.items():
            found = engine.inspect(name)
            assert found["Id"] == given.document["config"]["digest"]
            assert found["RootFS"]["Layers"] == json.loads(given.blobs[found["Id"]])["rootfs"]["diff_ids"]
        engine.docker("save", "-o", str(tmp_path / "saved.tar"), *KINDS)
    check(store, tmp_path / "saved.tar", same_layers=False)


@needs_root
@needs("containerd")
def test_containerd_imports_and_exports_it(
    exported: Path,
    store: ContentStore,
    tmp_path: Path,
    containerd: Path,  # noqa: F811
) -> None:
    ctr = ("ctr", "-a", containerd, "images")
    run(*ctr, "import", "--no-unpack", exported)
    run(*ctr, "export", tmp_path / "saved.tar", *KINDS)
    check(store, tmp_path / "saved.tar", same_layers=True)


@pytest.fixture(scope="module")
def podman(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """Arguments of podman's storage, which has loaded the archive; buildah takes the same."""
    with tempfile.TemporaryDirectory() as short:  # podman takes no longer name
        storage = ("--root", str(tmp_path_factory.mktemp("podman")), "--runroot", short, "--storage-driver", "vfs")
        run("podman", *storage, "load", "-q", "-i", exported)
        yield storage


@needs_root
@needs("podman")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_podman_saves_what_it_loaded(podman: tuple[str, ...], store: ContentStore, tmp_path: Path, form: str) -> None:
    if form == "docker-archive":
        run("podman", *podman, "save", "-q", "--multi-image-archive", "-o", tmp_path / "saved", *KINDS)
        check(store, tmp_path / "saved", same_layers=False)
        return
    for name in KINDS:
        path = tmp_path / f"saved-{len(list(tmp_path.iterdir()))}"
        run("podman", *podman, "save", "-q", "--format", form, "-o", path, name)
        check_one(store, path, name, converted=True)


@needs_root
@needs("buildah")
@pytest.mark.parametrize("kind", ["oci-archive", "oci", "docker-archive"])
def test_buildah_pushes_what_was_loaded(podman: tuple[str, ...], store: ContentStore, tmp_path: Path, kind: str) -> None:
    for name in KINDS:
        path = tmp_path / f"saved-{len(list(tmp_path.iterdir()))}"
        run("buildah", *podman, "push", "-q", "--signature-policy", policy(tmp_path), name, f"{kind}:{path}:{name}")
        check_one(store, path, name, converted=kind != "docker-archive")


def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return path


def check_one(store: ContentStore, path: Path, name: str, *, converted: bool = False) -> None:
    """The same of an archive of one image, whose name some tools leave out.

    Args:
        converted: from docker's types into OCI's, by whoever saved it: then the config is written anew.
    """
    if path.is_dir():
        [found] = load_into(store, DirectorySource(path)).images
    else:
        with path.open("rb") as file:
            [found] = load_into(store, TarSource(file)).images
    given: Image = KINDS[name]
    assert found.reference in ("", name)
    config = json.loads(store.read(found.config, 1 << 20))
    assert (
        config["rootfs"]["diff_ids"]
        == inflated(store, found)
        == json.loads(given.blobs[given.document["config"]["digest"]])["rootfs"]["diff_ids"]
    )
    if converted:
        assert (config["os"], config["architecture"]) == ("linux", "amd64")
    else:
        assert found.config == given.document["config"]["digest"]


@needs("skopeo")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
def test_skopeo_copies_it(exported: Path, store: ContentStore, tmp_path: Path, kind: str) -> None:
    source = "docker-archive" if kind == "docker-archive" else "oci-archive"
    for name in KINDS:
        path = tmp_path / f"copied-{len(list(tmp_path.iterdir()))}"
        run("skopeo", "copy", "--insecure-policy", f"{source}:{exported}:{name}", f"{kind}:{path}:{name}")
        check_one(store, path, name)

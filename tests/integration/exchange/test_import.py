"""`pullonce import`: what other tools save is read, verified, and nothing half done is ever seen."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pullonce.cli.main import main
from pullonce.client import connect
from pullonce.errors import Permanent
from pullonce.exchange.load import Loaded
from pullonce.exchange.read import ArchiveInvalid
from pullonce.exchange.sources import DirectorySource, TarSource
from pullonce.store.content import ContentStore, open_store
from schemas.events import BlobClaimed
from schemas.oci import Digest
from tests.integration.exchange.conftest import NAME, OTHER, list_image
from tests.integration.exchange.test_export import needs, run
from tests.integration.pulls.test_pulls import happened
from tests.support.deployment import Deployment
from tests.support.gate import Gate
from tests.support.images import Image, digest_of, image, layer, push, tar_of
from tests.support.importing import load_into
from tests.support.registry import RegistryServer

Make = Callable[[Path, Path], Path]


def skopeo(kind: str) -> Make:
    def make(archive: Path, where: Path) -> Path:
        target = where / ("layout" if kind == "oci" else "x.tar")
        run("skopeo", "copy", "--insecure-policy", f"oci-archive:{archive}:{NAME}", f"{kind}:{target}:{NAME}")
        return target

    return make


def compressed(archive: Path, where: Path) -> Path:
    (where / "x.tar.gz").write_bytes(gzip.compress(archive.read_bytes(), 1))
    return where / "x.tar.gz"


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return open_store(tmp_path / "other" / "stores" / "default")


def read(store: ContentStore, path: Path) -> Loaded:
    if path.is_dir():
        return load_into(store, DirectorySource(path))
    with path.open("rb") as file:
        return load_into(store, TarSource(file))


def names_in(store: ContentStore) -> set[str]:
    return {f"sha256:{each.name}" for each in (store.root / "blobs" / "sha256").iterdir()}


@needs("skopeo")
@pytest.mark.parametrize(
    "make", [skopeo("oci-archive"), skopeo("oci"), compressed, lambda archive, where: archive],
    ids=["oci-archive", "oci", "gzip", "pullonce"],
)  # fmt: skip
def test_a_layout_gives_the_same_blobs_under_the_same_names(
    archive: Path,
    app: Image,
    store: ContentStore,
    tmp_path: Path,
    make: Make,
) -> None:
    path = make(archive, tmp_path)
    loaded = read(store, path)
    [image] = [each for each in loaded.images if each.reference == NAME]
    assert (image.config, image.platform) == (app.document["config"]["digest"], "linux/amd64")
    assert {blob.digest for blob in image.blobs} <= names_in(store)
    if path == archive or path.suffix == ".gz":  # skopeo compresses layers that are not
        assert image.digest == app.digest and {app.digest, *app.blobs} <= names_in(store)
    assert {digest: store.size(digest) for digest in loaded.fresh} == loaded.fresh


@needs("skopeo")
def test_dockers_older_form_gives_the_same_config_and_layers_as_they_are_saved(
    archive: Path,
    app: Image,
    store: ContentStore,
    tmp_path: Path,
) -> None:
    [image] = read(store, skopeo("docker-archive")(archive, tmp_path)).images
    assert (image.reference, image.config) == (NAME, app.document["config"]["digest"])
    manifest = json.loads(store.read(image.manifest.digest, 1 << 20))
    diff_ids = json.loads(app.blobs[image.config])["rootfs"]["diff_ids"]
    assert [each["digest"] for each in manifest["layers"]] == diff_ids  # skopeo inflates what it saves
    assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    assert all(store.has(Digest(each)) for each in diff_ids)


def test_what_is_there_is_gone_past(archive: Path, store: ContentStore) -> None:
    first, second = read(store, archive), read(store, archive)
    assert len(first.fresh) == 7 and second.fresh == {}
    assert {each.reference for each in second.images} == {NAME, OTHER}


def changed(archive: Path, where: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """The archive with some of its files changed, or left out."""
    path = where / "changed.tar"
    with tarfile.open(archive) as tar, tarfile.open(path, "w") as made:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            content = change(member.name, file.read())
            if content is not None:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))
    return path


def test_a_blob_that_is_something_else_is_never_seen(archive: Path, app: Image, store: ContentStore, tmp_path: Path) -> None:
    bad = app.layers[1][7:]
    path = changed(archive, tmp_path, lambda name, content: b"x" * len(content) if bad in name else content)
    with pytest.raises(Permanent) as caught:
        read(store, path)
    assert caught.value.code == "digest.mismatch"
    assert names_in(store) == {digest_of(store.blob_path(Digest(each)).read_bytes()) for each in names_in(store)}
    assert not list((store.root / "ingest").iterdir())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("index.json", "cannot be read"),
        ("layer", "lacks a part of registry.example/team/app:1"),
        ("all", "no archive of images"),
    ],
)
def test_an_archive_that_lacks_something_is_refused(
    archive: Path,
    app: Image,
    store: ContentStore,
    tmp_path: Path,
    name: str,
    why: str,
) -> None:
    def change(member: str, content: bytes) -> bytes | None:
        if name == "index.json":
            return b"{]" if member == "index.json" else content
        return None if (name == "all" and member.endswith(".json")) or app.layers[0][7:] in member else content

    with pytest.raises(ArchiveInvalid, match=why):
        read(store, changed(archive, tmp_path, change))


@pytest.mark.parametrize("cut", [0, 100, 5_000, 1_000_000])
def test_an_archive_that_breaks_off_leaves_whole_blobs_only(
    archive: Path, store: ContentStore, tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "cut.tar"
    path.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(ArchiveInvalid):
        read(store, path)
    assert names_in(store) == {digest_of(store.blob_path(Digest(each)).read_bytes()) for each in names_in(store)}
    assert read(store, archive).images


def test_names_that_lead_elsewhere_write_nothing_there(store: ContentStore, tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../../../evil.tar", "/blobs/sha256/../../evil", "blobs/sha256/" + "a" * 64):
            member = tarfile.TarInfo(name)
            tar.addfile(member)
        link = tarfile.TarInfo("blobs/sha256/" + "b" * 64)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises((ArchiveInvalid, Permanent)):
        read(store, path)
    assert names_in(store) == set()


def test_importing_is_a_pull_for_whoever_uses_it(archive: Path, tmp_path: Path, app: Image) -> None:
    """The command as a user gives it: nothing runs, so it starts what it needs; then the image is there, unpacked."""
    home = tmp_path / "fresh"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")} | {
        "PULLONCE_HOME": str(home)
    }
    command = [sys.executable, "-m", "pullonce", "import", str(archive)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{NAME}  linux/amd64  {app.document['config']['digest']}" in done.stdout
    command = [sys.executable, "-m", "pullonce", "images", "--json"]
    listed = json.loads(subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=True).stdout)
    assert {each["reference"]: len(each["chain_ids"]) for each in listed} == {NAME: 2, OTHER: 1}


@pytest.mark.parametrize("unpack", [True, False])
async def test_whoever_waits_for_a_layer_that_does_not_come_is_released(
    tmp_path: Path, registry: RegistryServer, unpack: bool
) -> None:
    """The registry says nothing more; somebody brings the same image in a file."""
    given = image([layer(tar_of({"file": os.urandom(100_000)}))])
    reference = push(registry.host, "app", "1", given)
    source = open_store(tmp_path / "source" / "stores" / "default")
    list_image(source, "registry.example/other/name:1", given)
    path = tmp_path / "images.tar"
    assert main(["export", "--home", str(tmp_path / "source"), "registry.example/other/name:1", "-o", str(path)]) == 0
    held = f"/blobs/{given.layers[0]}".encode()
    deployment = Deployment(tmp_path / "home").start()
    try:
        with Gate(registry.host, held) as gate:
            waiting = deployment.start_pull(gate.reference(reference), *([] if unpack else ["--no-unpack"]))
            async with connect(deployment.url) as client:
                await happened(client, BlobClaimed, 1)
            assert waiting.poll() is None
            done = await asyncio.to_thread(deployment.run, "import", str(path), *([] if unpack else ["--no-unpack"]))
            assert done.returncode == 0, done.stderr
            said, complaint = await asyncio.to_thread(waiting.communicate, None, 60)
            assert not any("an attempt failed" in line for line in deployment.output), "nobody waited for the registry"
            assert waiting.returncode == 0, complaint
            assert given.document["config"]["digest"] in said
    finally:
        deployment.stop()

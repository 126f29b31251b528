"""`pullonce export`: what it writes is read by skopeo, podman and containerd, byte for byte the same config and layers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from pullonce.cli.main import main
from tests.integration.exchange.conftest import NAME, OTHER
from tests.support.images import Image

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="podman and containerd keep what they load as root only")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*command: str | Path) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_archive_is_the_same_for_the_same_images(home: Path, archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar"
    assert main(["export", "--home", str(home), NAME, OTHER, "-o", str(again)]) == 0
    assert again.read_bytes() == archive.read_bytes()


def test_an_archive_holds_each_blob_once_and_its_documents_first(archive: Path, app: Image) -> None:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert len(set(names)) == len(names) == 3 + 2 * 2 + 3
    assert {f"blobs/sha256/{each[7:]}" for each in (app.digest, *app.blobs)} <= set(names)


def test_an_archive_goes_through_a_pipe(home: Path, archive: Path) -> None:
    command = f"pullonce export --home {home} {NAME} tool -o - | cat"
    piped = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=True, env=with_pullonce())
    assert piped.stdout == archive.read_bytes()


def with_pullonce() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@needs("skopeo")
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_skopeo_reads_it(archive: Path, app: Image, tmp_path: Path, kind: str) -> None:
    run("skopeo", "copy", "--insecure-policy", f"{kind}:{archive}:{NAME}", f"dir:{tmp_path / 'copy'}")
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_bytes())
    assert manifest["config"]["digest"] == app.document["config"]["digest"]
    if kind == "oci-archive":
        assert [each["digest"] for each in manifest["layers"]] == app.layers


@needs_root
@needs("podman")
def test_podman_loads_it(archive: Path, app: Image, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # podman takes no longer name
        podman = ("podman", "--root", tmp_path / "root", "--runroot", short, "--storage-driver", "vfs")
        run(*podman, "load", "-q", "-i", archive)
        found = json.loads(run(*podman, "image", "inspect", NAME))[0]
        listed = json.loads(run(*podman, "images", "--format", "json"))
    assert f"sha256:{found['Id']}" == app.document["config"]["digest"]
    assert {name for each in listed for name in each["Names"]} == {OTHER, NAME}


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Path]:
    """A containerd of this test's own; yields its socket."""
    socket = tmp_path / "c.sock"
    config = tmp_path / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    command = ["containerd", "--config", config, "--root", tmp_path / "cr", "--state", tmp_path / "cs", "--address", socket]
    process = subprocess.Popen([str(each) for each in command], stderr=subprocess.DEVNULL)
    try:
        end = monotonic() + 30
        while subprocess.run(["ctr", "-a", str(socket), "version"], capture_output=True, check=False).returncode:
            assert monotonic() < end and process.poll() is None, "containerd does not answer"
            sleep(0.05)
        yield socket
    finally:
        process.terminate()
        process.wait()


@needs_root
@needs("containerd")
def test_containerd_imports_it(archive: Path, app: Image, containerd: Path) -> None:
    run("ctr", "-a", containerd, "images", "import", "--no-unpack", archive)
    assert run("ctr", "-a", containerd, "images", "list", "-q").split() == [OTHER, NAME]
    for digest in (app.digest, *app.blobs):
        assert run("ctr", "-a", containerd, "content", "ls", "-q").count(digest) == 1


@pytest.mark.parametrize("harm", ["missing", "shorter"])
def test_what_the_store_lacks_is_said_and_no_archive_is_left(
    home: Path, app: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    blob = home / "stores/default/blobs/sha256" / app.layers[0][7:]
    blob.unlink() if harm == "missing" else os.truncate(blob, 5)
    assert main(["export", "--home", str(home), NAME, "-o", str(tmp_path / "x.tar")]) == 1
    assert "verify --repair" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("references", "why"),
    [(["nobody/knows:1"], "pull it first"), ([NAME, "-o", "/nowhere/x.tar"], "/nowhere/x.tar cannot be written")],
)
def test_what_cannot_be_exported_is_said(home: Path, tmp_path: Path, references: list[str], why: str, capsys) -> None:  # type: ignore[no-untyped-def]
    output = [] if "-o" in references else ["-o", str(tmp_path / "x.tar")]
    assert main(["export", "--home", str(home), *references, *output]) == 1
    assert why in capsys.readouterr().err

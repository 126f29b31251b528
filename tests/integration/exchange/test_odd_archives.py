"""Archives as others write them, and as nobody should; and an import while the store is collected."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pullonce.exchange.export import appearing
from pullonce.exchange.holding import HOLDER
from pullonce.exchange.read import ArchiveInvalid
from pullonce.exchange.sources import TarSource
from pullonce.store.content import ContentStore, open_store
from pullonce.store.holds import Holds
from tests.integration.exchange.conftest import NAME
from tests.support.deployment import Deployment
from tests.support.images import Image, digest_of, image, layer, tar_of
from tests.support.importing import load_into

INDEX = "application/vnd.oci.image.index.v1+json"


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return open_store(tmp_path / "other" / "stores" / "default")


def archive_of(files: Mapping[str, bytes]) -> TarSource:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return TarSource(io.BytesIO(out.getvalue()))


def saved_by(name: str, given: Image) -> dict[str, bytes]:
    """An image in docker's older form, with the names that some tool gives to its files."""
    config = given.document["config"]["digest"]
    hexes = [each.partition(":")[2] for each in given.layers]
    named = {
        "crane": (config, [f"{each}.tar.gz" for each in hexes]),
        "jib": ("config.json", [f"{each}.tgz" for each in hexes]),
        "directories": (f"{config.partition(':')[2]}.json", [f"{each}/layer.tar" for each in hexes]),
        "no ending": ("config", [f"layers/{each}" for each in hexes]),
        "blobs": (f"blobs/{config.replace(':', '/')}", [f"blobs/sha256/{each}" for each in hexes]),
    }[name]
    files = {path: given.blobs[digest] for path, digest in zip(named[1], given.layers, strict=True)}
    files[named[0]] = given.blobs[config]
    files["manifest.json"] = json.dumps([{"Config": named[0], "RepoTags": [NAME], "Layers": named[1]}]).encode()
    return files


@pytest.mark.parametrize("compression", ["gzip", "plain", "zstd"])
@pytest.mark.parametrize("name", ["crane", "jib", "directories", "no ending", "blobs"])
def test_layers_are_known_by_what_they_are_whatever_they_are_called(store: ContentStore, name: str, compression: str) -> None:
    given = image([layer(tar_of({"one": os.urandom(4_000)}), compression), layer(tar_of({"two": b"2"}), compression)])
    [found] = load_into(store, archive_of(saved_by(name, given))).images
    suffix = {"gzip": "+gzip", "plain": "", "zstd": "+zstd"}[compression]
    assert [each.digest for each in found.blobs[2:]] == given.layers and found.reference == NAME
    assert {each.media_type for each in found.blobs[2:]} == {f"application/vnd.oci.image.layer.v1.tar{suffix}"}
    assert found.config == given.document["config"]["digest"] and all(store.has(each.digest) for each in found.blobs)


def test_a_layer_longer_than_a_document_may_be_has_any_name(store: ContentStore) -> None:
    given = image([layer(tar_of({"long": os.urandom(17 << 20)}), "plain")])
    [found] = load_into(store, archive_of(saved_by("no ending", given))).images
    assert [each.digest for each in found.blobs[2:]] == given.layers


def _index(below: list[bytes]) -> bytes:
    entries = [{"mediaType": INDEX, "digest": digest_of(each), "size": len(each)} for each in below]
    return json.dumps({"schemaVersion": 2, "manifests": entries}).encode()


@pytest.mark.parametrize("times, deep", [(2, 41), (1, 100)])
def test_indexes_that_lead_through_each_other_without_end_are_refused(store: ContentStore, times: int, deep: int) -> None:
    files, at = {}, _index([])
    for _ in range(deep):
        files[f"blobs/{digest_of(at).replace(':', '/')}"] = at
        at = _index([at] * times)
    with pytest.raises(ArchiveInvalid, match="indexes"):
        load_into(store, archive_of({**files, "index.json": at}))


def test_an_entry_that_is_listed_twice_is_one(store: ContentStore, app: Image) -> None:
    entry = {**app.descriptor(), "annotations": {"io.containerd.image.name": NAME}}
    files = {f"blobs/{digest.replace(':', '/')}": each for digest, each in {**app.blobs, app.digest: app.content}.items()}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry] * 1000}).encode()
    assert len(load_into(store, archive_of(files)).images) == 1


def test_too_few_files_at_once_are_said_to_be_too_few(tmp_path: Path) -> None:
    given = image([layer(tar_of({str(number): os.urandom(100)}), "plain") for number in range(60)])
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in saved_by("directories", given).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    command = [sys.executable, "-m", "pullonce", "import", "--home", str(tmp_path / "home"), str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50)),
    )  # fmt: skip
    assert done.returncode == 1 and "ulimit -n" in done.stderr and "Traceback" not in done.stderr


def test_an_archive_replaces_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    path, others = tmp_path / "o.tar", tmp_path / f".o.tar.{os.getpid()}.unfinished"
    others.write_bytes(b"foreign")
    with appearing(path) as out:
        os.write(out, b"ours")
    assert path.read_bytes() == b"ours" and others.read_bytes() == b"foreign"
    assert path.stat().st_mode & 0o777 == 0o600 and sorted(tmp_path.iterdir()) == sorted([path, others])


# -- while the store is collected -----------------------------------------------------------------------------------------


def test_a_collection_takes_nothing_of_an_import_under_way(tmp_path: Path, archive: Path) -> None:
    """By a named pipe: half of the archive, a collection, the other half."""
    deployment = Deployment(tmp_path / "fresh").start()
    pipe, whole = tmp_path / "pipe", archive.read_bytes()
    os.mkfifo(pipe)
    try:
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(deployment.run, "import", str(pipe))
            with pipe.open("wb", buffering=0) as out:
                out.write(whole[:-1_000_000])  # returns when the rest fits into the pipe
                collected = deployment.run("gc")
                assert collected.returncode == 0 and "import" in collected.stdout, collected.stdout + collected.stderr
                out.write(whole[-1_000_000:])
            done = reading.result(60)
        assert done.returncode == 0, done.stderr
        assert not list(Holds(deployment.store).all(HOLDER))
    finally:
        deployment.stop()


_WAITS = """
import sys, time
from pathlib import Path
from pullonce.exchange.holding import importing
from pullonce.store.content import ContentStore
with importing(ContentStore(Path(sys.argv[1]))) as hold:
    for number in range(100):
        hold.keep(f"sha256:{number:064x}")
    print("holds", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_import_held_counts_no_more(store: ContentStore) -> None:
    importing = subprocess.Popen([sys.executable, "-c", _WAITS, str(store.root)], stdout=subprocess.PIPE, text=True)
    assert importing.stdout is not None and importing.stdout.readline() == "holds\n"
    holds = Holds(store.root)
    assert sum(len(each.blobs) for each in holds.all(HOLDER)) == 100
    importing.send_signal(signal.SIGKILL)
    importing.wait(30)
    assert not list(holds.all()) and not list((store.root / "holds" / HOLDER).iterdir())

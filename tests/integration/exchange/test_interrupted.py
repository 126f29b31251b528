"""Exports and imports that end too early: nothing half done is to be seen, and the next one does all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pullonce.cli.main import main
from pullonce.exchange.sources import TarSource
from pullonce.store.content import ContentStore, open_store
from tests.integration.exchange.conftest import NAME, list_image
from tests.integration.exchange.test_export import needs_root, with_pullonce
from tests.support.images import digest_of, image, layer, tar_of
from tests.support.importing import load_into

BIG = image([layer(tar_of({f"file-{each}": os.urandom(20_000_000)}), "plain") for each in range(3)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("big") / "home"
    list_image(open_store(home / "stores" / "default", sync=False), NAME, BIG)
    return home


@pytest.fixture(scope="module")
def archive(home: Path) -> Path:
    path = home.parent / "whole.tar"
    assert main(["export", "--home", str(home), NAME, "-o", str(path)]) == 0
    return path


def begin(*words: str, **given: int) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "pullonce", *words]
    return subprocess.Popen(
        command, stdout=given.get("stdout", pipe), stdin=given.get("stdin"), stderr=pipe, env=with_pullonce()
    )


@pytest.mark.parametrize(("stop", "before"), [(signal.SIGKILL, False), (signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_export_that_is_stopped_leaves_what_was_there(
    home: Path, tmp_path: Path, stop: signal.Signals, before: bool
) -> None:
    """It is stopped while it writes: the file system is slow, as a pipe is that nobody reads."""
    path = tmp_path / "x.tar"
    if before:
        path.write_bytes(b"older")
    exporting = begin("export", "--home", str(home), NAME, "-o", str(path))
    while exporting.poll() is None and not written(exporting.pid):
        pass
    exporting.send_signal(stop)
    exporting.communicate(timeout=30)
    left = [each for each in tmp_path.iterdir() if each != path]
    assert left == []
    if exporting.returncode == 0:
        return  # it was done before
    assert path.read_bytes() == b"older" if before else not path.exists()


def written(pid: int) -> bool:
    """Whether a process has begun to write in earnest."""
    try:
        return any(
            int(line.partition(":")[2]) > 1_000_000
            for line in Path(f"/proc/{pid}/io").read_text().splitlines()
            if "wchar" in line
        )
    except (FileNotFoundError, ProcessLookupError):
        return True


@needs_root
def test_a_full_disk_is_said_and_nothing_is_left(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    try:
        assert main(["export", "--home", str(home), NAME, "-o", str(small / "x.tar")]) == 1
        assert "x.tar cannot be written: No space left on device" in capsys.readouterr().err
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_reader_that_leaves_is_no_success(home: Path) -> None:
    exporting = begin("export", "--home", str(home), NAME, "-o", "-")
    assert exporting.stdout is not None
    exporting.stdout.read(100_000)
    exporting.stdout.close()
    assert exporting.wait(30) == 1
    assert exporting.stderr is not None and b"the archive is not whole" in exporting.stderr.read()


def test_what_is_no_file_is_written_and_stays_what_it_is(home: Path, archive: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    exporting = begin("export", "--home", str(home), NAME, "-o", str(fifo))
    assert fifo.read_bytes() == archive.read_bytes()
    assert exporting.wait(30) == 0 and stat.S_ISFIFO(fifo.stat().st_mode)
    linked = tmp_path / "linked.tar"
    linked.symlink_to(tmp_path / "elsewhere.tar")
    assert main(["export", "--home", str(home), NAME, "-o", str(linked)]) == 0
    assert linked.is_symlink() and (tmp_path / "elsewhere.tar").read_bytes() == archive.read_bytes()
    assert main(["export", "--home", str(home), NAME, "-o", "/dev/null"]) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ContentStore]:
    yield open_store(tmp_path / "other" / "stores" / "default", sync=False)


def check(store: ContentStore) -> None:
    """What is to be seen is whole, and there is nothing beside it."""
    for path in (store.root / "blobs" / "sha256").iterdir():
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
    assert list((store.root / "ingest").iterdir()) == [] and store.images.all() == []


@pytest.mark.parametrize(
    ("stop", "count"),
    [(signal.SIGKILL, 100), (signal.SIGKILL, 60_000_000), (signal.SIGINT, 25_000_000), (signal.SIGTERM, 25_000_000)],
)
def test_an_import_that_is_stopped_leaves_whole_blobs_only(
    archive: Path, other: ContentStore, tmp_path: Path, stop: signal.Signals, count: int
) -> None:
    importing = begin("import", "--home", str(tmp_path / "other"), "-", stdin=subprocess.PIPE)
    assert importing.stdin is not None
    content = archive.read_bytes()
    importing.stdin.write(content[:count])
    importing.stdin.flush()
    importing.send_signal(stop)
    importing.communicate(timeout=30)
    assert importing.returncode != 0
    check(other)
    with archive.open("rb") as file:
        loaded = load_into(other, TarSource(file))
    assert {each.reference for each in loaded.images} == {NAME}


@pytest.mark.parametrize("count", [0, 700, 25_000_000])
def test_a_pipe_that_breaks_is_said(archive: Path, other: ContentStore, tmp_path: Path, count: int) -> None:
    importing = begin("import", "--home", str(tmp_path / "other"), "-", stdin=subprocess.PIPE)
    _, said = importing.communicate(archive.read_bytes()[:count], timeout=30)
    assert importing.returncode == 1 and said.count(b"\n") == 1, said
    check(other)


def test_a_tar_of_any_dialect_is_read(archive: Path, other: ContentStore, tmp_path: Path) -> None:
    """GNU's and the oldest one too, whose headers do not say what they are."""
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT)):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(archive) as tar, tarfile.open(path, "w", format=form) as made:
            for member in tar:
                made.addfile(member, tar.extractfile(member))
        with path.open("rb") as file:
            assert {each.reference for each in load_into(other, TarSource(file)).images} == {NAME}

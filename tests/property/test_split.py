"""tar-split and the tree give the tar of a layer back, byte for byte, whatever dialect it is in and whatever it does."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings

from pullonce.store.splits import SplitDone, SplitFailed
from tests.property.test_layers import LAYERS
from tests.support.awkward import BASE, UPPER
from tests.support.layers import Image, UnpackerService, entry, tar
from tests.support.odd_tars import ENDINGS, READ, file
from tests.support.tar_split import Splitter, assembled, job, lines

EXAMPLES = int(os.environ.get("PULLONCE_EXAMPLES", "0"))
"""Where it is set, that many are drawn at random; otherwise always the same ones."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


@pytest.fixture(scope="module")
def splitter() -> Iterator[Splitter]:
    with Splitter() as running:
        yield running


def gives_back(service: UnpackerService, splitter: Splitter, image: Image, tars: list[bytes]) -> list[SplitDone]:
    """Unpack an image, and have each of its layers come out again."""
    service.unpack(image)
    found = []
    with tempfile.TemporaryDirectory() as place:
        for index, expected in enumerate(tars):
            asked = job(service.root, image, index, Path(place, str(index)))
            said = splitter.ask(asked)
            assert isinstance(said, SplitDone), said
            assert assembled(Path(asked.target), Path(asked.tree)) == expected
            assert said.size == len(expected)
            found.append(said)
    return found


@needs_root
@settings(max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=LAYERS)
def test_random_layers_come_out_again(layers: list[list[object]], service: UnpackerService, splitter: Splitter) -> None:
    tars = [tar(*layer) for layer in layers]
    try:
        service.unpack(Image(tars))
    except AssertionError:
        raise
    except Exception:
        return  # refused as a layer, such as one with a link to what is not there
    gives_back(service, splitter, Image(tars), tars)


@needs_root
@pytest.mark.parametrize("what", UPPER)
def test_awkward_layers_come_out_again(service: UnpackerService, splitter: Splitter, what: str) -> None:
    tars = [BASE, tar(*UPPER[what])]
    gives_back(service, splitter, Image(tars), tars)


@needs_root
def test_archives_that_tools_read_differently_come_out_again(service: UnpackerService, splitter: Splitter) -> None:
    for what, tars in {**{name: each + bytes(1024) for name, each in READ.items()}, **ENDINGS}.items():
        print(what)
        gives_back(service, splitter, Image([tars]), [tars])


@pytest.mark.parametrize("kind", ["tar", "gzip", "two members", "zstd", "nothing"])
def test_however_a_layer_is_compressed(service: UnpackerService, splitter: Splitter, kind: str) -> None:
    content = b"" if kind == "nothing" else tar(entry("f", content=kind.encode() * 300_000), entry("empty"))
    half = len(content) // 2
    blob = {
        "gzip": gzip.compress(content),
        "two members": gzip.compress(content[:half]) + gzip.compress(content[half:]),
        "zstd": zstandard.compress(content),
    }.get(kind, content)
    done = gives_back(service, splitter, Image([content], [blob]), [content])[0]
    assert done.compression == {"two members": "gzip", "nothing": "tar"}.get(kind, kind)


def test_what_the_tree_has_is_not_kept_twice(service: UnpackerService, splitter: Splitter, tmp_path: Path) -> None:
    noise = os.urandom(3_000_000)
    image = Image([tar(entry("./a/b", content=noise, uid=5), entry("c", content=noise[:9], gid=70_000), entry("d", "dir"))])
    service.unpack(image)
    asked = job(service.root, image, 0, tmp_path / "split")
    said = splitter.ask(asked)
    assert isinstance(said, SplitDone)
    assert (said.uids, said.gids) == ([0, 5], [0, 70_000])
    assert [each["name"] for each in lines(tmp_path / "split") if each["type"] == 1] == ["a/b", "c"]
    assert (tmp_path / "split").stat().st_size < 2_000


def test_names_that_are_no_text(service: UnpackerService, splitter: Splitter, tmp_path: Path) -> None:
    archive = file(b"caf\xe9", b"latin") + file("ca\u0301fé".encode(), b"text") + file(b'back\\slash"\n', b"odd") + bytes(1024)
    image = Image([archive])
    gives_back(service, splitter, image, [archive])
    asked = job(service.root, image, 0, tmp_path / "split")
    splitter.ask(asked)
    assert len([each for each in lines(tmp_path / "split") if each["type"] == 1]) == 3


def test_a_tree_that_has_changed_since_is_not_believed(service: UnpackerService, splitter: Splitter, tmp_path: Path) -> None:
    content = os.urandom(2_500_000)
    archive = tar(entry("same", content=content), entry("other", content=content), entry("gone", content=b"x"))
    image = Image([archive])
    service.unpack(image)
    asked = job(service.root, image, 0, tmp_path / "split")
    tree = Path(asked.tree)
    (tree / "other").write_bytes(content[:-1] + b"!")
    (tree / "gone").unlink()
    (tree / "gone").symlink_to("same")
    assert isinstance(splitter.ask(asked), SplitDone)
    assert [each["name"] for each in lines(tmp_path / "split") if each["type"] == 1] == ["same"]
    assert assembled(tmp_path / "split", tree) == archive


def test_a_blob_that_is_damaged_is_refused(service: UnpackerService, splitter: Splitter, tmp_path: Path) -> None:
    archive = tar(entry("f", content=b"f" * 1000))
    image = Image([archive], [archive])
    service.unpack(image)
    asked = job(service.root, image, 0, tmp_path / "split")
    Path(asked.blob).write_bytes(archive.replace(b"f" * 1000, b"f" * 999 + b"!"))
    said = splitter.ask(asked)
    assert isinstance(said, SplitFailed) and "instead of" in said.why
    assert not Path(asked.target).exists()
    Path(asked.blob).write_bytes(archive[:700])
    said = splitter.ask(job(service.root, image, 0, tmp_path / "again"))
    assert isinstance(said, SplitFailed) and "ends" in said.why
    Path(asked.blob).unlink()
    assert isinstance(splitter.ask(job(service.root, image, 0, tmp_path / "third")), SplitFailed)

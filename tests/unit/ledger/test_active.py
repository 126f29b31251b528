"""What is shown of a pull in the air, where a blob and its layer go by one name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pullonce.pulling.identity import identify
from schemas.events import BlobClaimed, LayerClaimed, PullRequested, PullResolved, ResolvedLayer, Source
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.progress import BlobProgress, LayerProgress, PullProgress
from services.ledger.answers import active
from services.ledger.answers.explaining import explain
from services.ledger.answers.live import Live
from services.ledger.fold.projection import Ledger
from services.ledger.fold.staging import stage

REFERENCE, NAME = "docker.io/library/plain:latest", "sha256:" + "a" * 64
"""A lowest layer that is stored uncompressed: digest, diffID and ChainID are one."""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    blob = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=Digest(NAME), size=100)
    flight = identify(REFERENCE).flight
    told = (
        PullRequested(reference=REFERENCE),
        PullResolved(
            reference=REFERENCE, flight=flight, opened=1, platform="linux/amd64", digest=blob.digest, manifest=blob,
            config=blob, source=Source("docker.io", "library/plain"),
            layers=(ResolvedLayer(blob=blob, diff_id=DiffID(NAME), chain_id=ChainID(NAME)),),
        ),
        BlobClaimed(digest=Digest(NAME), revision=1, holder="one"),
        LayerClaimed(chain_id=ChainID(NAME), revision=2, holder="two"),
    )  # fmt: skip
    ledger = Ledger(tmp_path / "ledger.duckdb")
    ledger.fold([stage(number, 1000.0 + number, event) for number, event in enumerate(told, 1)])
    yield ledger.reader()
    ledger.close()


@pytest.fixture
def live() -> Live:
    heard = Live()
    heard.take(BlobProgress(digest=Digest(NAME), done=60, size=100))
    heard.take(LayerProgress(chain_id=ChainID(NAME), blob=Digest(NAME), done=40, size=100))
    return heard


def test_the_page_fills_each_by_its_own_progress(reader: duckdb.DuckDBPyConnection, live: Live) -> None:
    works = active.activity_of(active.read(reader), live).works.values()
    assert [(work.kind, work.name, work.state, work.done, work.holder) for work in works] == [
        ("fetch", NAME, "fetching", 60, "one"),
        ("unpack", NAME, "unpacking", 40, "two"),
    ]


def test_an_explanation_tells_who_holds_which(reader: duckdb.DuckDBPyConnection, live: Live) -> None:
    pieces = explain(reader, REFERENCE, live, 1010.0).pieces
    assert [(piece.work, piece.doing, piece.progress, piece.holder) for piece in pieces] == [
        ("resolve", "", 0, ""),
        ("fetch", "fetching", 60, "one"),
        ("unpack", "unpacking", 40, "two"),
        ("record", "", 0, ""),
    ]


def test_of_several_pieces_in_the_air_the_one_that_was_ordered_first_is_waited_for(tmp_path: Path) -> None:
    upper, lower = (Descriptor(media_type="m", digest=Digest(f"sha256:{name * 64}"), size=100) for name in "bc")
    told = (
        PullRequested(reference=REFERENCE),
        BlobClaimed(digest=upper.digest, revision=1, holder="another's"),
        PullResolved(
            reference=REFERENCE, flight=identify(REFERENCE).flight, opened=1, platform="linux/amd64", digest=lower.digest,
            manifest=lower, config=lower, source=Source("docker.io", "library/plain"),
            layers=tuple(
                ResolvedLayer(blob=each, diff_id=DiffID(each.digest), chain_id=ChainID(each.digest)) for each in (lower, upper)
            ),
        ),
        BlobClaimed(digest=lower.digest, revision=2, holder="ours"),
    )  # fmt: skip
    ledger = Ledger(tmp_path / "two.duckdb")
    ledger.fold([stage(number, 1000.0 + number, event) for number, event in enumerate(told, 1)])
    answer = explain(ledger.reader(), REFERENCE, Live(), 1010.0)
    ledger.close()
    assert (answer.parts[-1].step, answer.parts[-1].name, answer.parts[-1].others) == ("waiting", upper.digest, True)


def test_a_flight_that_is_resolved_again_says_why(tmp_path: Path) -> None:
    flight = identify(REFERENCE).flight
    ledger = Ledger(tmp_path / "again.duckdb")
    ledger.fold([stage(1, 1000.0, PullRequested(reference=REFERENCE))])
    heard = Live()
    for opened, why in ((0, "of a flight before"), (1, "429: not so fast")):
        heard.take(PullProgress(reference=REFERENCE, flight=flight, opened=opened, state="retrying", attempt=1, error=why))
    (seen,) = active.activity_of(active.read(ledger.reader()), heard).flights.values()
    ledger.close()
    assert (seen.state, seen.error) == ("resolving", "429: not so fast")

"""Logs for the ledger to fold, random ones among them, and the rows of a whole ledger."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pullonce.pulling.identity import identify
from schemas import events
from schemas.events import Event
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from services.ledger.fold.projection import Ledger
from services.ledger.fold.staging import Staged, stage
from services.ledger.fold.tables import TABLES
from services.ledger.fold.views import VIEWS

REFERENCES = ("docker.io/library/redis:latest", "ghcr.io/some/app:1", "redis", "not a reference")
START = 1_700_000_000.0

Rows = dict[str, list[tuple[Any, ...]]]


def rows(ledger: Ledger) -> Rows:
    """Every row of every table and view, in an order of its own."""
    reader = ledger.reader()
    found = {each.name: reader.execute(f"SELECT * FROM {each.name}").fetchall() for each in (*TABLES, *VIEWS)}
    reader.close()
    return {name: sorted(each, key=repr) for name, each in found.items()}


def folded(path: Path, batches: Iterable[Sequence[Staged]]) -> Ledger:
    """A new ledger that has folded some batches."""
    ledger = Ledger(path)
    for batch in batches:
        ledger.fold(batch)
    return ledger


def loaded(path: Path, staged: Iterable[Staged]) -> Ledger:
    """A new ledger that was made from NDJSON, all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.with_suffix(".ndjson")
    lines.write_text("".join(map(as_line, staged)))
    ledger = Ledger(path, sealed=False)
    ledger.load(lines)
    return ledger


def as_line(staged: Staged) -> str:
    """A staged row as `staging.line` would have written it."""
    sequence, micros, kind, body = staged
    return f'{{"sequence":{sequence},"micros":{micros},"kind":"{kind}","body":{body}}}\n'


def cut(staged: Sequence[Staged], chance: random.Random) -> list[Sequence[Staged]]:
    """The same rows in batches of any size."""
    batches = []
    at = 0
    while at < len(staged):
        size = chance.choice((1, 1, 2, 3, 5, 8, 30))
        batches.append(staged[at : at + size])
        at += size
    return batches


class Scribbler:
    """Writes random logs: of events that fit together, and of some that do not."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._sequence = chance.choice((0, 1000))
        self._time = START
        self._asked: list[tuple[int, str, str]] = []
        self._kinds: tuple[Callable[[], Event | None], ...] = (
            *(self._requested,) * 6,
            *(self._ended,) * 4,
            *(self._cancelled,) * 2,
            *(self._resolved, self._worked, self._claimed, self._failed, self._recorded, self._lost, self._opened),
            lambda: None,
        )

    def log(self, length: int) -> list[Staged]:
        """The rows of a log."""
        return [self._next() for _ in range(length)]

    def _next(self) -> Staged:
        self._sequence += self._chance.choice((1, 1, 1, 1, 2))
        self._time += self._chance.choice((0.0, 0.001, 0.25, 3600.0))
        event = self._chance.choice(self._kinds)()
        return stage(self._sequence, self._time, event, subject="pull.eaten", reason='"no" event\n')

    def _name(self, kind: str) -> str:
        return f"sha256:{kind}{self._chance.randrange(4):063x}"

    def _requested(self) -> Event:
        reference = self._chance.choice(REFERENCES)
        requester = self._chance.choice(("", "node-1", "node-2", "ünïcode \U0001f433 \x00'\""))
        snapshots = self._chance.random() < 0.8
        door = ("", "cli", "cri")[len(requester) % 3]
        event = events.PullRequested(reference=reference, requester=requester, unpack=snapshots, credential="ci", door=door)
        flight = stage(0, 0.0, event)[3].rpartition('"flight":"')[2][:16]
        self._asked.append((self._sequence, reference, flight))
        return event

    def _a_flight(self) -> tuple[str, str, int]:
        """Reference, name and position of the opening of a flight that may exist."""
        if not self._asked or self._chance.random() < 0.1:
            return "redis", identify("redis").flight, self._chance.randrange(2000)
        opened, reference, flight = self._chance.choice(self._asked[-6:])
        return reference, flight, opened

    def _ended(self) -> Event:
        reference, flight, opened = self._a_flight()
        covers = self._chance.choice((self._sequence, max(0, self._sequence - self._chance.randrange(6)), opened, 1 << 40))
        if self._chance.random() < 0.3:
            return events.PullFailed(
                reference=reference, flight=flight, opened=opened, covers=covers, code="MANIFEST_UNKNOWN", message="it's\ngone"
            )
        sharing = events.Sharing(requests=3, fetched=1, fetched_bytes=10, waited=2)
        return events.PullCompleted(
            reference=reference, flight=flight, opened=opened, covers=covers, platform="linux/amd64", sharing=sharing,
            digest=Digest(self._name("a")), manifest=Digest(self._name("b")), image_id=Digest(self._name("c")),
            layers=2, size=99,
        )  # fmt: skip

    def _cancelled(self) -> Event:
        reference, flight, request = self._a_flight()
        return events.PullCancelled(reference=reference, flight=flight, request=request)

    def _resolved(self) -> Event:
        reference, flight, opened = self._a_flight()
        blob = Descriptor(media_type="m", digest=Digest(self._name("d")), size=self._chance.choice((0, 5, 1 << 70)))
        layer = events.ResolvedLayer(blob=blob, diff_id=DiffID("sha256:0"), chain_id=ChainID("sha256:1"), unpacked=True)
        return events.PullResolved(
            reference=reference, flight=flight, opened=opened, platform="linux/amd64", digest=blob.digest, manifest=blob,
            config=blob, source=events.Source("ghcr.io", "some/app"), layers=(layer,) * self._chance.randrange(3),
            seconds={"head": 0.1, "store": 1e300},
        )  # fmt: skip

    def _worked(self) -> Event:
        revision = self._chance.randrange(100)
        if self._chance.random() < 0.5:
            return events.BlobFetched(digest=Digest(self._name("d")), size=5, revision=revision, seconds={"transfer": 0.5})
        chain, diff = ChainID(self._name("e")), DiffID(self._name("f"))
        return events.LayerUnpacked(chain_id=chain, diff_id=diff, revision=revision, reused=True, left_out={"owners": 2})

    def _claimed(self) -> Event:
        if self._chance.random() < 0.5:
            return events.BlobClaimed(digest=Digest(self._name("d")), revision=5, holder="c-1")
        return events.LayerClaimed(chain_id=ChainID(self._name("e")), revision=6, holder="c-2", store="other")

    def _failed(self) -> Event:
        reference, flight, opened = self._a_flight()
        blob, code = Digest(self._name("d")), "disk.full"
        return self._chance.choice((
            events.BlobFailed(digest=blob, revision=1, source=events.Source("r", "p"), concerns="key", code=code, message="m"),
            events.LayerFailed(chain_id=ChainID("c"), blob=blob, revision=1, concerns="nobody", code=code, message="m"),
            events.PullUnresolved(reference=reference, flight=flight, opened=opened, code=code, message="m"),
            events.PullUnrecorded(reference=reference, flight=flight, opened=opened, code=code, message="m"),
        ))  # fmt: skip

    def _recorded(self) -> Event:
        reference, flight, opened = self._a_flight()
        return events.PullRecorded(reference=reference, flight=flight, opened=opened, revision=9)

    def _lost(self) -> Event:
        return self._chance.choice((events.BlobLost(digest=Digest("d"), reason="r"), events.LayerLost(chain_id=ChainID("c"))))

    def _opened(self) -> Event:
        return events.StoreOpened(incarnation="abc")

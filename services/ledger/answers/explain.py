"""Where the time of a pull went: its pieces of work → the critical path. Pure.

The path is walked backwards from the end: whatever ended last before a point is what was waited for at that point. Each step
of it begins where the one before it ended, so the parts add up to the whole by construction.

Times are seconds since the epoch, by the clock of the bus; a worker says only how long its steps took, so a piece of work is
laid out backwards from the moment at which its fact was stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from schemas.ledger import Part

Kind = Literal["resolve", "fetch", "unpack", "record"]


@dataclass(slots=True)
class Work:
    """One piece of work that a flight needed.

    Attributes:
        end: when its fact was stored; None: not yet.
        steps: seconds by step, in order.
        ordered: when its order was announced; None: unknown.
        blob: of a layer, its blob's digest.
        parent: of a layer, the ChainID below it.
    """

    kind: Kind
    name: str = ""
    end: float | None = None
    steps: dict[str, float] = field(default_factory=dict)
    ordered: float | None = None
    present: bool = False
    failed: bool = False
    others: bool = False
    blob: str = ""
    parent: str = ""

    @property
    def begin(self) -> float | None:
        """When a worker began; None: unknown."""
        return None if self.end is None or not self.steps else self.end - sum(self.steps.values())


@dataclass(slots=True)
class Story:
    """All that is known of one flight, from somebody's beginning to its end or to now."""

    begin: float
    end: float
    ended: bool
    resolve: Work
    record: Work | None = None
    blobs: dict[str, Work] = field(default_factory=dict)
    layers: dict[str, Work] = field(default_factory=dict)


class _Path:
    """The parts, laid from the end towards the beginning."""

    def __init__(self, begin: float, end: float) -> None:
        self._begin = begin
        self.at = end
        self._parts: list[Part] = []

    def back(self, to: float, step: str, work: Work | None = None) -> None:
        """One part, from `to` up to where the path stands."""
        to = min(max(to, self._begin), self.at)
        if self.at - to > 0:
            self._parts.append(
                Part(
                    step=step,
                    work=work.kind if work else "",
                    name=work.name if work else "",
                    begin=to - self._begin,
                    seconds=self.at - to,
                    others=work.others if work else False,
                )
            )
        self.at = to

    def parts(self) -> tuple[Part, ...]:
        return tuple(reversed(self._parts))


def critical_path(story: Story) -> tuple[Part, ...]:
    """The parts of a pull, in order; together as long as the pull."""
    path = _Path(story.begin, story.end)
    resolved = story.resolve.end if not story.resolve.failed else None
    if story.resolve.end is not None:
        last = _last_settled(story)
        path.back(last.end if last and last.end is not None else path.at, "release" if story.ended else "waiting", _open(story))
        while last is not None and last is not story.resolve:
            last = _walk(path, story, last)
        path.back(resolved if resolved is not None else path.at, "order")
    elif not story.ended:
        path.back(story.begin, "waiting", story.resolve)
    _steps(path, story.resolve, floor=story.begin)
    path.back(story.begin, "attempts" if story.resolve.failed else "order", story.resolve)
    return path.parts()


def _open(story: Story) -> Work | None:
    """What a flight in the air waits for: of several pieces, the one that was ordered first."""
    if story.ended:
        return None
    missing = [work for work in (*story.layers.values(), *story.blobs.values()) if work.end is None and not work.present]
    blobs = [work for work in missing if work.kind == "fetch"]
    if blobs or missing:
        return min(blobs or missing, key=lambda work: work.ordered or story.end)
    return story.record


def _settled(story: Story) -> list[Work]:
    """The work that the flight really waited for."""
    works = [*story.layers.values(), *story.blobs.values(), *([story.record] if story.record else [])]
    after = story.resolve.end or story.begin
    return [work for work in works if work.end is not None and after < work.end <= story.end]


def _last_settled(story: Story) -> Work | None:
    works = _settled(story)
    return max(works, key=lambda work: work.end or 0.0) if works else story.resolve


def _walk(path: _Path, story: Story, work: Work) -> Work | None:
    """Go back over one piece of work; returns the one that was waited for before it, None for the resolution."""
    assert work.end is not None, "only finished work lies on the path"
    path.back(work.end, "order", work)
    floor = story.resolve.end or story.begin
    before = _before(path, story, work, floor)
    if before is not None:
        return before
    _wait(path, work, floor)
    return None


def _wait(path: _Path, work: Work, floor: float) -> None:
    """What lies between a piece of work becoming wanted and a worker beginning it. The bus tells when an order had been sent,
    but not those of resolving and listing."""
    if work.failed:
        path.back(floor, "attempts", work)
    elif work.ordered is not None:
        path.back(max(work.ordered, floor), "queue", work)
        path.back(floor, "claim", work)
    else:
        path.back(floor, "order", work)


def _before(path: _Path, story: Story, work: Work, floor: float) -> Work | None:
    """Lay the steps of a piece of work; stop where one of them waited for another piece, and return that."""
    for step in reversed(work.steps):
        start = path.at - work.steps[step]
        waited_for = _waited_for(story, work, step)
        if waited_for is not None and waited_for.end is not None and waited_for is not work:
            met = min(waited_for.end, path.at)
            if met > max(start, floor):
                path.back(met, step, work)
                return waited_for
        path.back(max(start, floor), step, work)
    if work.kind == "record":
        ended = [each for each in _settled(story) if each is not work and (each.end or 0.0) <= path.at]
        if ended:
            last = max(ended, key=lambda each: each.end or 0.0)
            path.back(last.end or floor, "order", work)
            return last
    return None


def _waited_for(story: Story, work: Work, step: str) -> Work | None:
    """The piece of work that a step may have had to wait for: an unpack follows its blob while that still comes."""
    if work.kind != "unpack":
        return None
    if step == "parent":
        return story.layers.get(work.parent)
    return story.blobs.get(work.blob) if step in ("blob", "unpack", "bytes") else None


def _steps(path: _Path, work: Work, *, floor: float) -> None:
    for step in reversed(work.steps):
        path.back(max(path.at - work.steps[step], floor), step, work)


_ADVICE = {
    "order": "orders waited: run more fetchers or unpackers, or a faster disk for the bus",
    "claim": "claiming and ordering took the time: the coordinators are busy, or the bus is slow",
    "queue": "orders waited for a worker: run more fetchers or unpackers",
    "attempts": "attempts failed before the last one did; the pieces say why",
    "token": "the registry's token server is slow; a credential with a static token would spare the request",
    "head": "the registry was asked what the tag names: policy if-not-present, or a digest instead of a tag, spares that",
    "manifest": "manifests came slowly from the registry; a mirror nearby would help",
    "config": "the config came slowly from the registry; a mirror nearby would help",
    "slot": "others were served first: allow more fetches a registry, or more unpack workers",
    "answer": "the registry took long until the first byte; a mirror nearby would help",
    "transfer": "the transfer took the time: a faster line, a mirror nearby, or a smaller image",
    "verify": "verifying and syncing took the time: a faster disk",
    "bytes": "the unpacker waited for the blob's first bytes",
    "unpack": "unpacking took the time: faster cores or disk, zstd instead of gzip, or smaller layers",
    "parent": "the layer below came last: more unpack workers",
    "commit": "committing the snapshot took the time: a faster disk",
    "record": "listing the image took the time: a faster disk",
    "release": "the ending came late: the coordinators are busy, or the bus is slow",
    "waiting": "it is still waiting; see the pieces for who holds what",
}


def advice(parts: tuple[Part, ...], *, share: float = 0.15) -> tuple[str, ...]:
    """What would have made it faster: for each step that took a good share of the whole, the greatest first."""
    whole = sum(part.seconds for part in parts)
    spent: dict[str, float] = {}
    for part in parts:
        spent[part.step] = spent.get(part.step, 0.0) + part.seconds
    largest = sorted(spent, key=lambda step: -spent[step])
    return tuple(
        f"{step}, {spent[step] / whole:.0%}: {_ADVICE[step]}"
        for step in largest
        if step in _ADVICE and whole and spent[step] >= share * whole
    )

"""What was last heard of work under way: progress passes by on core NATS and is never stored. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from schemas.malformed import Malformed
from schemas.progress import BlobProgress, LayerProgress, ProgressMessage, PullProgress, decode, decode_now

_MOST = 10_000
"""Pieces of work that are remembered."""

Sort: TypeAlias = Literal["resolve", "fetch", "unpack", "record"]
Key: TypeAlias = tuple[Sort, str, str]
"""What is done, in which store, and the digest, the ChainID, or `flight_name`. The name alone does not tell: the lowest layer's
ChainID is its diffID, and where that layer is stored uncompressed, the digest of its blob as well."""


@dataclass(frozen=True, slots=True)
class LiveProgress:
    """The last word on one piece of work."""

    done: int = 0
    size: int = 0
    state: str = ""
    attempts: int = 0
    """Attempts that came to nothing, as far as they were heard."""
    error: str = ""
    """Why the last of them did."""
    worker: str = ""
    since: float = 0.0
    """Seconds since the epoch at which the present attempt began; 0: nobody said."""

    def then(self, said: ProgressMessage) -> LiveProgress:
        """What is known after another word. One about an earlier attempt, from a worker that no longer has it, adds only why
        that came to nothing."""
        if 0 < said.since < self.since:
            return replace(self, error=self.error or said.error) if self.attempts else self
        again = said.state == "retrying"
        if not said.attempt:  # by a worker of an older version, or by the disk
            attempts = self.attempts + again
        elif said.since == self.since:
            attempts = max(self.attempts, said.attempt - (not again))
        else:
            attempts = said.attempt - (not again)
        return LiveProgress(
            done=said.done,
            size=said.size,
            state=said.state,
            attempts=attempts,
            error=said.error or (self.error if attempts else ""),
            worker=said.worker,
            since=said.since,
        )


class Live:
    """The last words by piece of work."""

    def __init__(self) -> None:
        self._heard: OrderedDict[Key, LiveProgress] = OrderedDict()
        self.words = 0
        """Messages taken so far: whoever looks again sees by it whether there is anything new."""

    def hear(self, _: str, body: bytes) -> None:
        """Take one progress message; what is none is passed over."""
        try:
            said = decode(body)
        except Malformed:
            return
        self.take(said)

    def hear_all(self, body: bytes) -> None:
        """Take the answer of a worker that was asked how far it is."""
        try:
            works = decode_now(body).works
        except Malformed:
            return
        for said in works:
            self.take(said)

    def take(self, said: ProgressMessage) -> None:
        """Take one word of progress."""
        key = _key(said)
        self._heard[key] = self._heard.pop(key, LiveProgress()).then(said)
        self.words += 1
        if len(self._heard) > _MOST:
            self._heard.popitem(last=False)

    def of(self, sort: Sort, store: str, name: str) -> LiveProgress:
        """The last word on one piece of work; an empty one where nothing was heard."""
        return self._heard.get((sort, store, name), LiveProgress())

    def all(self) -> dict[Key, LiveProgress]:
        """Everything that is remembered, the oldest word first."""
        return dict(self._heard)


def flight_name(flight: str, opened: int) -> str:
    """What the resolving and the listing of one flight are kept under: flights of one name follow one another."""
    return f"{flight}.{opened}"


def _key(said: ProgressMessage) -> Key:
    match said:
        case BlobProgress():
            return "fetch", said.store, said.digest
        case LayerProgress():
            return "unpack", said.store, said.chain_id
        case PullProgress():
            return said.work, said.store, flight_name(said.flight, said.opened)

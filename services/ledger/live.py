"""What was last heard of work under way: progress passes by on core NATS and is never stored. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from schemas.malformed import Malformed
from schemas.progress import BlobProgress, LayerProgress, decode, decode_now

_MOST = 10_000
"""Pieces of work that are remembered."""

Sort: TypeAlias = Literal["fetch", "unpack"]
Key: TypeAlias = tuple[Sort, str, str]
"""What is done, in which store, and the digest or ChainID. The name alone does not tell: the lowest layer's ChainID is its
diffID, and where that layer is stored uncompressed, the digest of its blob as well."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The last word on one blob or layer."""

    done: int = 0
    size: int = 0
    state: str = ""
    attempts: int = 0
    """Attempts that came to nothing, as far as they were heard."""
    error: str = ""


class Live:
    """The last words by piece of work."""

    def __init__(self) -> None:
        self._heard: OrderedDict[Key, Heard] = OrderedDict()
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

    def take(self, said: BlobProgress | LayerProgress) -> None:
        """Take one word of progress."""
        key = _key(said)
        before = self._heard.pop(key, Heard())
        heard = replace(before, done=said.done, size=said.size, state=said.state)
        if said.state == "retrying":
            heard = replace(heard, attempts=before.attempts + 1)
        if said.error:
            heard = replace(heard, error=said.error)
        self._heard[key] = heard
        self.words += 1
        if len(self._heard) > _MOST:
            self._heard.popitem(last=False)

    def of(self, sort: Sort, store: str, name: str) -> Heard:
        """The last word on fetching a digest or unpacking a ChainID; an empty one where nothing was heard."""
        return self._heard.get((sort, store, name), Heard())

    def all(self) -> dict[Key, Heard]:
        """Everything that is remembered, the oldest word first."""
        return dict(self._heard)


def _key(said: BlobProgress | LayerProgress) -> Key:
    if isinstance(said, BlobProgress):
        return "fetch", said.store, said.digest
    return "unpack", said.store, said.chain_id

"""Progress: core NATS messages that are never stored. They hurry and inform; nothing depends on one arriving.

Subject: `progress.<store>.<digest, ChainID or flight>`. At most a few a second for each blob or layer; the last one of an
attempt says how it ended.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.malformed import read
from schemas.oci import ChainID, Digest


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Where some work stands."""

    store: str = "default"
    done: int = 0
    """Bytes so far."""
    size: int = 0
    """Bytes in all; 0 where that is not known."""
    error: str = ""
    """Why the attempt is being repeated or was given up."""
    retry_in: float = 0.0
    """Seconds until the next attempt."""
    worker: str = ""
    """Who works on it: the service, its process and its machine."""
    attempt: int = 0
    """Which attempt this is, from 1; 0 where that is not known."""
    since: float = 0.0
    """Seconds since the epoch at which this attempt began, by the worker's clock; 0 where that is not known."""


class BlobProgress(Progress, frozen=True, kw_only=True, tag="blob.progress"):
    """A fetch. `done` bytes of the blob lie in the ingest file, readable by whoever follows it."""

    digest: Digest
    state: Literal["waiting", "fetching", "verified", "retrying", "aborted"] = "fetching"
    """`waiting`: a worker has it in hand, and others are served first."""


class LayerProgress(Progress, frozen=True, kw_only=True, tag="layer.progress"):
    """An unpack. `done` counts the compressed bytes consumed."""

    chain_id: ChainID
    blob: Digest
    state: Literal["waiting", "unpacking", "committed", "retrying", "aborted"] = "unpacking"


class PullProgress(Progress, frozen=True, kw_only=True, tag="pull.progress"):
    """A step of a whole pull is being repeated: the resolution of its reference, or the listing of its image.

    That the first attempt has begun is said to whoever asks (`progress.now`), and not published.
    """

    reference: str
    flight: str
    opened: int
    """Position in the log at which the flight was opened."""
    work: Literal["resolve", "record"] = "resolve"
    state: Literal["working", "retrying"] = "working"


ProgressMessage = BlobProgress | LayerProgress | PullProgress
"""Any progress message."""


def name_of(word: ProgressMessage) -> str:
    """What a word is about: a digest, a ChainID, or the name of a flight."""
    match word:
        case BlobProgress():
            return word.digest
        case LayerProgress():
            return word.chain_id
        case PullProgress():
            return word.flight


class ProgressNow(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="progress.now", tag_field="type"):
    """The answer of one worker to `progress.now.<store>`: where the work stands that was asked about."""

    store: str = "default"
    works: tuple[BlobProgress | LayerProgress | PullProgress, ...] = ()


_now: msgspec.json.Decoder[ProgressNow] = msgspec.json.Decoder(ProgressNow)
_names: msgspec.json.Decoder[tuple[str, ...]] = msgspec.json.Decoder(tuple[str, ...])


def decode_now(body: bytes) -> ProgressNow:
    """Read such an answer; raises Malformed where it is none."""
    return read(_now, body, "progress.now")


def names_of(body: bytes) -> tuple[str, ...]:
    """Read such a question: digests, ChainIDs and flights; none, where everything is meant. Raises Malformed."""
    return read(_names, body, "question about progress") if body else ()


_decoder: msgspec.json.Decoder[ProgressMessage] = msgspec.json.Decoder(ProgressMessage)


def decode(body: bytes) -> ProgressMessage:
    """Read a progress message; raises Malformed where it is none."""
    return read(_decoder, body, "progress message")

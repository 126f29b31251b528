"""Progress: core NATS messages that are never stored. They hurry and inform; nothing depends on one arriving.

Subject: `progress.<store>.<digest or ChainID>`. At most a few a second for each blob or layer; the last one of an attempt
says how it ended.
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


class BlobProgress(Progress, frozen=True, kw_only=True, tag="blob.progress"):
    """A fetch. `done` bytes of the blob lie in the ingest file, readable by whoever follows it."""

    digest: Digest
    state: Literal["fetching", "verified", "retrying", "aborted"] = "fetching"


class LayerProgress(Progress, frozen=True, kw_only=True, tag="layer.progress"):
    """An unpack. `done` counts the compressed bytes consumed."""

    chain_id: ChainID
    blob: Digest
    state: Literal["waiting", "unpacking", "committed", "retrying", "aborted"] = "unpacking"


class ProgressNow(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="progress.now", tag_field="type"):
    """The answer of one worker to `progress.now.<store>`: where the work stands that was asked about."""

    store: str = "default"
    works: tuple[BlobProgress | LayerProgress, ...] = ()


_now: msgspec.json.Decoder[ProgressNow] = msgspec.json.Decoder(ProgressNow)
_names: msgspec.json.Decoder[tuple[str, ...]] = msgspec.json.Decoder(tuple[str, ...])


def decode_now(body: bytes) -> ProgressNow:
    """Read such an answer; raises Malformed where it is none."""
    return read(_now, body, "progress.now")


def names_of(body: bytes) -> tuple[str, ...]:
    """Read such a question: digests and ChainIDs; none, where everything is meant. Raises Malformed."""
    return read(_names, body, "question about progress") if body else ()


_decoder: msgspec.json.Decoder[BlobProgress | LayerProgress] = msgspec.json.Decoder(BlobProgress | LayerProgress)


def decode(body: bytes) -> BlobProgress | LayerProgress:
    """Read a progress message; raises Malformed where it is none."""
    return read(_decoder, body, "progress message")

"""What is asked and said of tar-split: by who wants it made, and by the process that makes it
(`services/unpacker/split_layers.py`)."""

import msgspec

from schemas.oci import DiffID


class SplitJob(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One layer."""

    blob: str
    """Where it lies as it is stored."""
    media_type: str
    diff_id: DiffID
    tree: str
    """Where its tree lies."""
    target: str
    """The file to make."""


class SplitProgress(msgspec.Struct, kw_only=True, tag="progress"):
    """How many more bytes of the blob were read."""

    read: int


class SplitDone(msgspec.Struct, kw_only=True, tag="done"):
    """The file is made, and on the disk. Read with the tree it gives the layer's tar, whose diffID was found to be right."""

    size: int
    """Bytes of the uncompressed tar."""
    compression: str
    """How the blob is compressed; `tar`: not at all."""
    uids: list[int]
    """The users whose files the layer has, sorted."""
    gids: list[int]


class SplitFailed(msgspec.Struct, kw_only=True, tag="failed"):
    """There is none."""

    why: str


SplitSaid = SplitProgress | SplitDone | SplitFailed

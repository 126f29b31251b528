"""What unpacking a layer on its own leaves to be said and done."""

from typing import NamedTuple

import msgspec


class Unnamed(NamedTuple):
    """A directory that no entry of the layer named."""

    path: bytes
    mtime: int
    """Nanoseconds: what it gets if no layer below has it."""
    fresh: bool = False
    """The layer removed what lower layers have under the name before it came there again."""
    group: int | None = None
    """Group that it takes over from a set-gid directory; -1: none, None: the layers below know."""
    removed: bool = False
    """The layer also removes it: if there is nothing in it, it goes."""


class Outcome(msgspec.Struct, kw_only=True):
    """What became of a layer, and what only the layers below can complete."""

    entries: int = 0
    size: int = 0
    """Bytes of file content as stored: holes of sparse files take none."""
    left_out: dict[str, int] = {}
    assumed: list[tuple[bytes, bytes]] = []
    """Directories that names passed through before any entry named them: there may be a link in a layer below.

    With the name under which to look it up below."""
    unnamed: list[Unnamed] = []
    """Directories that no entry named, parents first."""
    whiteouts: list[bytes] = []
    """Names that are removed, if a layer below has them."""
    opaque_root: bool = False
    """Nothing of the layers below is to be seen."""
    links: list[tuple[bytes, bytes]] = []
    """Names that shall be hard links, with targets that this layer does not have."""

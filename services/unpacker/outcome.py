"""What unpacking a layer on its own leaves to be said and done."""

import msgspec


class Outcome(msgspec.Struct, kw_only=True):
    """What became of a layer, and what only the layers below can complete."""

    entries: int = 0
    size: int = 0
    """Bytes of file content."""
    left_out: dict[str, int] = {}
    assumed: list[bytes] = []
    """Directories that names passed through before any entry named them: there may be a link in a layer below."""
    unnamed: list[tuple[bytes, int]] = []
    """Directories that no entry named, and the time they get if no layer below has them; parents last."""
    opaque_root: bool = False
    """Nothing of the layers below is to be seen."""
    links: list[tuple[bytes, bytes]] = []
    """Names that shall be hard links, with targets that this layer does not have."""

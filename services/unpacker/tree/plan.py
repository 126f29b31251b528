"""Entry → step: what one entry of a layer asks for, and where. Pure.

Whiteouts by the OCI image-spec (layer, "Whiteouts"): `.wh.NAME` removes what lower layers call NAME, `.wh..wh..opq` all that
lower layers have in its directory; other names that begin with `.wh..wh.` are aufs' own and say nothing.
"""

from enum import IntEnum
from typing import NamedTuple

from services.unpacker.tar.entry import DIRECTORY, FILE, HARDLINK, MAX_NAME, Entry
from services.unpacker.tar.invalid import Escapes, LayerError, shown

_WHITEOUT = b".wh."
_AUFS = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
AUFS_LINKS = b".wh..wh.plnk"
"""aufs kept the targets of hardlinks in this directory at the root: needed while unpacking, no part of the tree."""


class Action(IntEnum):
    """The kinds of step."""

    ROOT = 0
    """Give the root the entry's attributes."""
    DIRECTORY = 1
    FILE = 2
    LINK = 3
    """Another name for a file."""
    NODE = 4
    """A symbolic link, a device or a FIFO."""
    WHITEOUT = 5
    """Remove what lower layers have under this name."""
    OPAQUE = 6
    """Remove what lower layers have in this directory."""
    NOTHING = 7


class TreeStep(NamedTuple):
    """One action on one name."""

    action: Action
    parent: bytes
    """Directory below the root, without `/` at either end; empty for the root itself."""
    name: bytes
    """One component; empty where the action is on `parent`."""


_ACTIONS = {FILE: Action.FILE, DIRECTORY: Action.DIRECTORY, HARDLINK: Action.LINK}


def plan(entry: Entry) -> TreeStep:
    """Say what an entry asks for.

    Raises:
        Escapes: its name leads out of the root.
        LayerError: it would replace the root by something else, it is a whiteout of nothing, or longer than any name.
    """
    path = clean(entry.name)
    parent, _, name = path.rpartition(b"/")
    if name[:4] == _WHITEOUT and parent[:12] != AUFS_LINKS:
        return _whiteout(entry, parent, name)
    if len(path) > MAX_NAME:
        raise LayerError(f"entry {shown(path)}: a name of more than {MAX_NAME} bytes")
    if not name:
        if entry.kind != DIRECTORY:
            raise LayerError(f"entry {shown(entry.name)} would replace the root of the layer by something that is no directory")
        return TreeStep(Action.ROOT, b"", b"")
    return TreeStep(_ACTIONS.get(entry.kind, Action.NODE), parent, name)


def _whiteout(entry: Entry, parent: bytes, name: bytes) -> TreeStep:
    if name == _OPAQUE:
        return TreeStep(Action.OPAQUE, parent, b"")
    if name == AUFS_LINKS and not parent and entry.kind == DIRECTORY:
        return TreeStep(Action.DIRECTORY, parent, name)
    if name[:8] == _AUFS:
        return TreeStep(Action.NOTHING, parent, name)
    hidden = name[4:]
    if hidden in (b"", b".", b".."):
        raise LayerError(f"entry {shown(entry.name)} is a whiteout without a name; expected `.wh.` and the name to remove")
    return TreeStep(Action.WHITEOUT, parent, hidden)


def clean(name: bytes) -> bytes:
    """Bring a name into the form `a/b/c`: relative, without empty, `.` and `..` components.

    `..` takes back the component before it, whatever that is on disk: so do Go's tools.

    Raises:
        Escapes: `..` leads above the root.
    """
    if b"//" not in name and b"/." not in name and name[:1] not in (b"/", b".", b"") and name[-1:] != b"/":
        return name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Escapes(f"entry {shown(name)} leads out of the root of the layer")
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)

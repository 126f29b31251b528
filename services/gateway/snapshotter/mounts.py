"""How a snapshot is mounted, as containerd and runc carry it out. Pure.

Lower directories have their real paths: a container with a user namespace gets idmapped mounts of them, and those follow no
links. containerd shortens the options of a deep stack by what their paths have in common, so that they fit a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.snapshotter.labels import GID_MAPPING, UID_MAPPING
from services.gateway.snapshotter.records import Kind, Record

UNFIT = ",:\\"
"""Characters that no path in a mount's options may have: what carries the mount out knows no escapes."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount, in the protocol's words."""

    type: str
    source: str
    options: tuple[str, ...]


def mount_of(record: Record, lower: Sequence[str], own: str, options: Sequence[str] = ()) -> Mount:
    """The mount of a container's snapshot, or of a view.

    Args:
        lower: the trees below it, from the top down.
        own: its own directory, with `fs` and `work`.
        options: of every overlay mount (`index=off`, `userxattr`).
    """
    mapped = [f"{name}={record.labels[label]}" for name, label in _MAPPINGS if label in record.labels]
    writable = record.kind == Kind.ACTIVE
    if not lower:
        return _bind(f"{own}/fs", mapped, writable=writable)
    if len(lower) == 1 and not writable:
        return _bind(lower[0], mapped, writable=False)
    upper = [f"workdir={own}/work", f"upperdir={own}/fs"] if writable else []
    return Mount("overlay", "overlay", (*mapped, *upper, "lowerdir=" + ":".join(lower), *options))


_MAPPINGS = (("uidmap", UID_MAPPING), ("gidmap", GID_MAPPING))


def _bind(source: str, mapped: Sequence[str], *, writable: bool) -> Mount:
    return Mount("bind", source, (*mapped, "rw" if writable else "ro", "rbind"))

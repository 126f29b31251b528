"""Compare file trees, attribute by attribute."""

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple


class Node(NamedTuple):
    """All there is to see of one file."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime: int
    what: object
    """Content digest and size, link target, or device number."""
    xattrs: tuple[tuple[str, bytes], ...]
    links: frozenset[bytes]
    """Every name of the same file, for files that have several."""


IGNORED = ("security.selinux", "trusted.overlay.", "user.overlay.")


def read_tree(root: Path | str, *, owners: bool = True) -> dict[bytes, Node]:
    """Everything below a directory, itself as `b""`, by name."""
    top = os.fsencode(root)
    statuses: dict[bytes, os.stat_result] = {b"": os.lstat(top)}
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files]:
            path = directory + b"/" + name
            statuses[path[len(top) + 1 :]] = os.lstat(path)
    names: dict[tuple[int, int], set[bytes]] = {}
    for path, status in statuses.items():
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault((status.st_dev, status.st_ino), set()).add(path)
    return {path: _node(top + b"/" + path, status, names, owners) for path, status in statuses.items()}


def _node(place: bytes, status: os.stat_result, names: dict[tuple[int, int], set[bytes]], owners: bool) -> Node:
    what: object = None
    if stat.S_ISREG(status.st_mode):
        what = (status.st_size, _digest(place) if status.st_size < 1 << 31 else "not read")
    elif stat.S_ISLNK(status.st_mode):
        what = os.readlink(place)  # noqa: PTH115
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        what = status.st_rdev
    xattrs = tuple(
        sorted(
            (name, os.getxattr(place, name, follow_symlinks=False))
            for name in os.listxattr(place, follow_symlinks=False)
            if not name.startswith(IGNORED)
        )
    )
    shared = names.get((status.st_dev, status.st_ino), set())
    return Node(
        kind=stat.S_IFMT(status.st_mode),
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid) if owners else (0, 0),
        mtime=status.st_mtime_ns,
        what=what,
        xattrs=xattrs,
        links=frozenset(shared) if len(shared) > 1 else frozenset(),
    )


def _digest(place: bytes) -> str:
    with open(place, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(ours: dict[bytes, Node], theirs: dict[bytes, Node]) -> list[str]:
    """What is not the same, in lines for people."""
    lines = []
    for path in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(path), theirs.get(path)
        if left is None or right is None:
            lines.append(f"{path!r}: only {'theirs' if left is None else 'ours'}")
        elif left != right:
            fields = [f"{f}: {a!r} != {b!r}" for f, a, b in zip(Node._fields, left, right, strict=True) if a != b]
            lines.append(f"{path!r}: {'; '.join(fields)}")
    return lines

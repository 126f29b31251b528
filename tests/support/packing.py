"""Trees made of drawn things, and tars of them by GNU tar and by Python's tarfile, in every dialect."""

from __future__ import annotations

import itertools
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Thing(NamedTuple):
    """A file to be made."""

    path: bytes
    kind: str
    content: bytes
    mode: int
    owner: tuple[int, int]
    mtime: int
    """Nanoseconds."""
    xattrs: Mapping[str, bytes] = {}


def make(root: bytes, things: list[Thing]) -> None:
    """Make a tree; names that are in each other's way are left out."""
    os.mkdir(root)  # noqa: PTH102
    made: list[Thing] = []
    files: list[bytes] = []
    for thing in things:
        place = root + b"/" + thing.path
        if passes_a_link(root, thing.path):
            continue
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120
            _make_one(place, thing, files)
        except (FileExistsError, NotADirectoryError):
            continue
        made.append(thing._replace(path=place))
    for thing in sorted(made, reverse=True):
        os.chown(thing.path, *thing.owner, follow_symlinks=False)
        if thing.kind != "symlink":
            os.chmod(thing.path, thing.mode)  # noqa: PTH101
        for name, value in thing.xattrs.items():
            if name.startswith("trusted.") or thing.kind in ("file", "sparse", "dir"):  # others may have no user's
                os.setxattr(thing.path, name, value, follow_symlinks=False)
    for directory, _, _ in os.walk(root, topdown=False):
        os.utime(directory, (1, 1_234_567_890))
    for thing in sorted(made, reverse=True):
        os.utime(thing.path, ns=(1, thing.mtime), follow_symlinks=False)


def passes_a_link(root: bytes, path: bytes) -> bool:
    """A name behind a symbolic link lies wherever that leads, perhaps outside the tree: none is made."""
    parts = path.split(b"/")
    return any(os.path.islink(root + b"/" + b"/".join(parts[:depth])) for depth in range(1, len(parts)))  # noqa: PTH114


def _make_one(place: bytes, thing: Thing, files: list[bytes]) -> None:
    match thing.kind:
        case "dir":
            os.mkdir(place)  # noqa: PTH102
        case "symlink":
            os.symlink(thing.content[:150].replace(b"\0", b"-") or b"target", place)  # noqa: PTH211
        case "hardlink" if files:
            os.link(files[-1], place)
        case "fifo":
            os.mkfifo(place)
        case "device":
            os.mknod(place, 0o20600, os.makedev(1, 5))
        case _:
            with open(place, "xb") as file:
                file.write(thing.content)
                if thing.kind == "sparse":
                    file.truncate(len(thing.content) + 300_000)
                    file.seek(0, os.SEEK_END)
                    file.write(b"end")
            files.append(place)


PACKERS = [
    "--format=gnu",
    "--format=posix",
    "--format=posix --sparse",
    "--format=gnu --sparse",
    "--format=oldgnu",
    "python gnu",
    "python pax",
]
"""How `pack` may do it: GNU tar's options, or Python's dialect."""


def pack(root: Path, packer: str, names: Sequence[bytes] = (), absent: Sequence[bytes] = ()) -> bytes:
    """A tar of a tree.

    Args:
        names: what goes in, relative to the root and in this order; empty: everything.
        absent: names whose content the archive does not have, though others are hard links to them: they lie in a layer below.
    """
    by = _by_python if packer.startswith("python") else _by_gnu_tar
    return by(root, packer, names or [b"."], absent, recursive=not names)


def _by_python(root: Path, packer: str, names: Sequence[bytes], absent: Sequence[bytes], *, recursive: bool) -> bytes:
    form = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}[packer.split()[1]]
    target = root.with_suffix(".tar")

    def with_xattrs(info: tarfile.TarInfo) -> tarfile.TarInfo:
        place = root / info.name
        if form == tarfile.PAX_FORMAT and not info.islnk():
            for name in os.listxattr(place, follow_symlinks=False):
                value = os.getxattr(place, name, follow_symlinks=False)
                info.pax_headers[f"SCHILY.xattr.{name}"] = value.decode("utf-8", "surrogateescape")
        return info

    with tarfile.open(target, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for name in absent:
            archive.gettarinfo(os.fsdecode(os.path.join(os.fsencode(root), name)), os.fsdecode(name))  # noqa: PTH118
        for name in names:
            archive.add(root / os.fsdecode(name), os.fsdecode(name), recursive=recursive, filter=with_xattrs)
    return target.read_bytes()


def _by_gnu_tar(root: Path, packer: str, names: Sequence[bytes], absent: Sequence[bytes], *, recursive: bool) -> bytes:
    options = packer.split()
    options += ["--xattrs", "--xattrs-include=*"] if "--format=posix" in options else []
    options += [] if recursive else ["--no-recursion"]
    target = root.with_suffix(".tar")
    # First what the hard links are to, so that they are written as such; it is cut off again.
    listed = b"".join(b"./" + name + b"\0" for name in [*absent, *names])
    command = ["tar", "-c", "-f", target, *options, "-C", root, "--null", "--no-unquote", "--verbatim-files-from", "-T", "-"]
    subprocess.run(command, input=listed, check=True, capture_output=True)
    with tarfile.open(target, errors="surrogateescape") as archive:
        first = next(itertools.islice(archive, len(absent), None))
    return target.read_bytes()[first.offset :]

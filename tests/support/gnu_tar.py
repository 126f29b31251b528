# ruff: noqa: PTH116, PTH118, PTH119, PTH120, PTH208
"""The tree of an image by GNU tar, layer upon layer: what a tar extractor does not know of layers is done here.

GNU tar knows nothing of whiteouts, and does not replace a directory that has something in it. What they hide is cleared away
before each layer is extracted, so that they reach only what lower layers brought. Nor does it make the directory that a
dangling link leads to, where later names pass through that link. A directory that a layer does not name keeps its time; one
that it names loses the extended attributes that it had.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

_WHITEOUT, _OPAQUE, _AUFS = ".wh.", ".wh..wh..opq", ".wh..wh."
_EXTRACT = [
    "tar", "-x", "-p", "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--delay-directory-restore",
    "--exclude=.wh.*", "--warning=no-timestamp",
]  # fmt: skip


def _members(layer: Path) -> list[tuple[str, tarfile.TarInfo]]:
    """Headers with their paths in normal form."""
    with tarfile.open(layer, "r|", errors="surrogateescape") as archive:
        return [(os.path.normpath(member.name.lstrip("/")), member) for member in archive]


class Stack:
    """A tree that grows layer by layer, bottom first.

    Attributes:
        root: the tree.
        named: directories as they are there now whose attributes a layer brought, relative to the root (`.` is the root).
            All others were made on the way to something else, at a time that the clock gave.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.root = root
        self.named: set[str] = set()

    def apply(self, layer: Path) -> None:
        """Put an uncompressed layer upon what is there.

        Raises:
            ValueError: a path leads out of the tree; or a directory and something else of this layer are one place by way of
                links, where GNU tar gives the one the attributes of the other.
            subprocess.CalledProcessError: GNU tar failed.
        """
        times = self._times()
        members = _members(layer)
        named = self._make_room(members)
        self._make_ways(members)
        self._refuse_collisions(members)
        # What is made on the way gets the mode that everybody gives it, whoever calls this.
        umask = os.umask(0o022)
        try:
            subprocess.run([*_EXTRACT, "-f", layer, "-C", self.root], check=True)
        finally:
            os.umask(umask)
        named = {self._place(name) for name in named}
        self.named |= named
        self._restore({place: time for place, time in times.items() if place not in named})

    def _make_room(self, members: list[tuple[str, tarfile.TarInfo]]) -> set[str]:
        """Clear away what the layer hides or replaces; the directories that it names."""
        named = set()
        for path, member in members:
            parent, name = os.path.split(path)
            if name == _OPAQUE:
                for child in self._children(self._place(parent)):
                    self._remove(child)
            elif name.startswith(_WHITEOUT):
                if not name.startswith(_AUFS):
                    self._remove(os.path.join(self._place(parent), name.removeprefix(_WHITEOUT)))
            else:
                if member.isdir():
                    named.add(path)
                    self._forget_xattrs(path)
                self._replace(path, directory=member.isdir())
        return named

    def _make_ways(self, members: list[tuple[str, tarfile.TarInfo]]) -> None:
        """Make directories that the layer reaches through links of its own only."""
        links = {path: member.linkname for path, member in members if member.issym()}
        for path, _ in members:
            for link in (path[:at] for at, char in enumerate(path) if char == "/" and path[:at] in links):
                (self.root / self._place(os.path.join(os.path.dirname(link), links[link]))).mkdir(parents=True, exist_ok=True)

    def _refuse_collisions(self, members: list[tuple[str, tarfile.TarInfo]]) -> None:
        found: dict[str, tuple[str, bool]] = {}
        for path, member in members:
            place = os.path.join(self._place(os.path.dirname(path)), os.path.basename(path))
            other, directory = found.setdefault(os.path.normpath(place), (path, member.isdir()))
            if other != path and directory != member.isdir():
                raise ValueError(f"{path} and {other} are one place")

    def _replace(self, path: str, *, directory: bool) -> None:
        place = os.path.join(self._place(os.path.dirname(path)), os.path.basename(path))
        try:
            there = os.lstat(self.root / place)
        except OSError:
            return
        if not (directory and stat.S_ISDIR(there.st_mode)):
            self._remove(place)

    def _forget_xattrs(self, path: str) -> None:
        place = self.root / self._place(os.path.dirname(path)) / os.path.basename(path)
        if place.is_dir() and not place.is_symlink():
            for name in os.listxattr(place):
                os.removexattr(place, name)

    def _place(self, path: str) -> str:
        """Where a path leads by the links that are there, relative to the root."""
        place = os.path.relpath(os.path.realpath(self.root / path), os.path.realpath(self.root))
        if place.startswith(".."):
            raise ValueError(f"{path} leads to {place}")
        return place

    def _children(self, place: str) -> list[str]:
        try:
            return [os.path.join(place, name) for name in os.listdir(self.root / place)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _remove(self, place: str) -> None:
        path, place = self.root / place, os.path.normpath(place)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
        self.named = {name for name in self.named if name != place and not name.startswith(f"{place}/")}

    def _times(self) -> dict[str, tuple[int, int]]:
        """Inode and time of each directory."""
        times = {}
        for directory, _, _, descriptor in os.fwalk(self.root):
            status = os.stat(descriptor)
            times[os.path.relpath(directory, self.root)] = status.st_ino, status.st_mtime_ns
        return times

    def _restore(self, times: dict[str, tuple[int, int]]) -> None:
        """Give directories that are still there their times again."""
        for place, (inode, mtime) in times.items():
            try:
                status = os.lstat(self.root / place)
            except OSError:  # gone, or below a file or a link that leads nowhere
                continue
            if status.st_ino == inode and stat.S_ISDIR(status.st_mode):
                os.utime(self.root / place, ns=(status.st_atime_ns, mtime))

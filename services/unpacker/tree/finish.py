"""Complete a layer that was unpacked on its own by a look at the layers below: as if each had been applied to those before it.

What a layer cannot know of itself: the attributes of directories that none of its entries names, links of lower layers that
its names pass through, and hard links to files of lower layers. overlayfs itself knows no opaque root. All of it is rare and
cheap: a few lookups for each such name, by open directories and never through a link (`opened.py`).
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.unpacker.tar.invalid import LayerError, TooLarge, shown
from services.unpacker.tree.copy_up import copy_up
from services.unpacker.tree.opened import Opened, by_descriptor
from services.unpacker.tree.outcome import Outcome, Unnamed
from services.unpacker.tree.rights import Attributes, Rights
from services.unpacker.tree.stack import Stack, is_whiteout

_READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def needs_layers_below(outcome: Outcome) -> bool:
    """Whether there is anything to complete that depends on other layers."""
    return bool(outcome.unnamed) or not needs_only_root(outcome)


def needs_only_root(outcome: Outcome) -> bool:
    """Whether all there is to complete are the attributes of the root: the usual layer."""
    others = outcome.assumed or outcome.links or outcome.whiteouts or outcome.opaque_root
    return not others and all(not directory.path for directory in outcome.unnamed)


def links_passed_through(outcome: Outcome, lower: list[Path]) -> dict[bytes, bytes]:
    """Names that this layer took for directories of its own and that are symbolic links below, with their targets.

    Where there are any, the layer must be unpacked again with that knowledge: its files belong where the links lead.
    """
    with Opened(shared=_shared(lower)) as opened:
        below = Stack(lower, opened)
        found = {path: below.lookup(name) for path, name in outcome.assumed}
        links = {path: each for path, each in found.items() if each is not None and each.is_link}
        return {path: opened.target(each.tree, each.path) for path, each in links.items()}


def _shared(lower: list[Path]) -> Path | None:
    """The directory that the trees of a store are in."""
    return lower[0].parent if lower else None


def complete(tree: Path, lower: list[Path], outcome: Outcome, rights: Rights, *, most: int = 1 << 37) -> int:
    """Complete a layer. Returns the bytes of file content that were copied for it.

    Args:
        tree: the layer's own directory, private still.
        lower: the trees of the layers below, from the top down.
        most: bytes that may be copied out of the layers below, but for those of the last file.

    Raises:
        LayerError: a hard link's target is in no layer.
        TooLarge: its links bring up more than they may.
    """
    with Opened(own=tree, shared=_shared(lower)) as opened:
        finish = _Finish([tree, *lower], outcome, rights, opened)
        finish.most = most
        finish.run()
        return finish.copied


class _Finish:
    """The completion of one layer, which is the first of some trees."""

    def __init__(self, trees: list[Path], outcome: Outcome, rights: Rights, opened: Opened) -> None:
        self._tree = trees[0]
        self._below = Stack(trees[1:], opened)
        self._merged = Stack(trees, opened)
        self._visible = Stack(trees[:1] if outcome.opaque_root else trees, opened)
        self._outcome = outcome
        self._rights = rights
        self._opened = opened
        self.most = 0
        self.copied = 0

    def run(self) -> None:
        outcome = self._outcome
        self._drop_idle_whiteouts(outcome.whiteouts)
        targets: dict[bytes, list[bytes]] = {}
        for name, target in outcome.links:
            targets.setdefault(target, []).append(name)
        made: list[Unnamed] = []
        for target, names in targets.items():
            made += self._link(target, names)
        described = [directory for directory in reversed([*outcome.unnamed, *made]) if self._is_wanted(directory)]
        if outcome.opaque_root:
            self._hide_everything()
        for directory in reversed(described):
            self._inherit(directory)

    def _is_wanted(self, directory: Unnamed) -> bool:
        """Remove a directory in which the layer only removes things, where no layer below has one, or it is itself removed."""
        path = directory.path
        found = None if directory.fresh else self._below.lookup(path)
        if not path or (found is not None and found.is_directory and not directory.removed):
            return True
        with self._times_kept([_parent(path)]):
            fd, name = self._opened.at(self._tree, path)
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError as exc:
                return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
            self._opened.forget(self._tree, path)
            if directory.removed and self._visible.is_below(path):
                self._hide(path)
        return False

    def _inherit(self, directory: Unnamed) -> None:
        """Give a directory the attributes it has below, or those of one that is made where nobody has described it."""
        found = None if directory.fresh else self._below.lookup(directory.path)
        if found is not None and found.is_directory:
            status = found.status
            xattrs = self._opened.attributes(found.tree, found.path)
            attributes = Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)
        else:
            group = self._group(directory)
            attributes = Attributes(0o755 if group < 0 else 0o2755, 0, max(group, 0), directory.mtime)
        above, name = self._opened.at(self._tree, directory.path)
        fd = os.open(name, _READABLE, dir_fd=above)
        try:
            self._rights.complete(fd, attributes)
        finally:
            os.close(fd)

    def _group(self, directory: Unnamed) -> int:
        """The group a new directory takes over, as mkdir does it in a set-gid directory; -1 where it takes none."""
        if directory.group is not None or not directory.path:
            return -1 if directory.group is None else directory.group
        above = self._below.lookup(_parent(directory.path))
        return above.status.st_gid if above is not None and above.status.st_mode & stat.S_ISGID else -1

    def _link(self, target: bytes, names: list[bytes]) -> list[Unnamed]:
        """Make hard links to a file of the layers below: copy it up, then link. Returns the directories made for it."""
        parent, _, last = target.rpartition(b"/")
        where = self._merged.resolve(parent)
        path = where + b"/" + last if where else last
        found = self._below.lookup(path)
        source = names[0]
        made: list[Unnamed] = []
        with self._times_kept([_parent(name) for name in names]):
            if self._own(source) is not None:
                raise LayerError(f"entry {shown(source)}: a hard link to a file, and yet the layer puts something below it")
            if found is None or found.is_directory:
                # The layer may bring the target itself, behind the link.
                own = self._own(path)
                if own is None or stat.S_ISDIR(own.st_mode) or is_whiteout(own):
                    raise LayerError(f"entry {shown(source)}: a hard link to {shown(target)}, which is a file in no layer")
                source = path
            else:
                with self._opened.held(self._tree, source) as (fd, name):
                    self.copied += copy_up(found, fd, name, self._opened, self._rights)
                if self.copied > self.most:
                    what = f"hard links to more than {self.most} bytes of the layers below"
                    raise TooLarge(f"entry {shown(source)}: {what}; PULLONCE_LAYER_MAX_BYTES raises the limit")
                made = self._make_directories(where, found.status.st_mtime_ns)
                self._is_wanted(Unnamed(path, 0))
                if self._own(path) is None:
                    with self._times_kept([_parent(path)]):
                        self._link_to(source, path)
            for each in names:
                if each != source:
                    self._link_to(source, each)
        return made

    def _link_to(self, source: bytes, name: bytes) -> None:
        with self._opened.held(self._tree, source) as (fd, last):
            there, new = self._opened.at(self._tree, name)
            os.link(last, new, src_dir_fd=fd, dst_dir_fd=there, follow_symlinks=False)

    def _make_directories(self, path: bytes, mtime: int) -> list[Unnamed]:
        """Make the directories of a path that this layer lacks; returns them, parents first."""
        made: list[Unnamed] = []
        at = b""
        for part in path.split(b"/") if path else ():
            at = at + b"/" + part if at else part
            if self._own(at) is None:
                with self._times_kept([_parent(at)]):
                    fd, name = self._opened.at(self._tree, at)
                    os.mkdir(name, 0o700, dir_fd=fd)
                made.append(Unnamed(at, mtime))
        return made

    def _hide(self, path: bytes) -> None:
        fd, name = self._opened.at(self._tree, path)
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=fd)

    def _hide_everything(self) -> None:
        """Hide all that lies below, name by name: overlayfs does not look at the attribute of a root."""
        with self._times_kept([b""]):
            for name in self._below.names(b""):
                status = self._own(name)
                if status is None:
                    self._hide(name)
                elif stat.S_ISDIR(status.st_mode):
                    fd = self._opened.directory(self._tree, name)
                    os.setxattr(by_descriptor(fd, b"."), self._rights.opaque, b"y", follow_symlinks=False)

    def _drop_idle_whiteouts(self, whiteouts: list[bytes]) -> None:
        """Remove marks that hide nothing: overlayfs lists them where only one layer has the directory they are in."""
        for path in whiteouts:
            status = self._own(path)
            if status is not None and is_whiteout(status) and not self._visible.is_below(path):
                with self._times_kept([_parent(path)]):
                    fd, name = self._opened.at(self._tree, path)
                    os.unlink(name, dir_fd=fd)

    def _own(self, path: bytes) -> os.stat_result | None:
        """What the layer itself has under a name, a link itself; None: nothing."""
        try:
            return self._opened.status(self._tree, path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def _times_kept(self, directories: list[bytes]) -> Iterator[None]:
        """Restore the times of directories in which names are made that no entry of theirs accounts for."""
        times = {path: self._opened.status(self._tree, path) for path in directories}
        yield
        for path, status in times.items():
            fd, name = self._opened.at(self._tree, path)
            os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=fd, follow_symlinks=False)


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]

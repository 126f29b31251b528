# ruff: noqa: PTH101, PTH102, PTH106, PTH108, PTH115, PTH119, PTH120, PTH211
"""Complete a layer that was unpacked on its own by a look at the layers below: as if each had been applied to those before it.

What a layer cannot know of itself: the attributes of directories that none of its entries names, links of lower layers that
its names pass through, and hard links to files of lower layers. overlayfs itself knows no opaque root. All of it is rare and
cheap: a few lookups for each such name.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.unpacker.invalid import LayerError, TooLarge, shown
from services.unpacker.outcome import Outcome, Unnamed
from services.unpacker.rights import PRIVATE, Attributes, Rights
from services.unpacker.sparse import copy_content
from services.unpacker.stack import Found, Stack, is_whiteout

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def needs_layers_below(outcome: Outcome) -> bool:
    """Whether there is anything to complete that depends on other layers."""
    return bool(outcome.unnamed) or not needs_only_root(outcome)


def needs_only_root(outcome: Outcome) -> bool:
    """Whether all there is to complete are the attributes of the root: the usual layer."""
    others = outcome.assumed or outcome.links or outcome.whiteouts or outcome.opaque_root
    return not others and all(not directory.path for directory in outcome.unnamed)


def links_passed_through(outcome: Outcome, below: Stack) -> dict[bytes, bytes]:
    """Names that this layer took for directories of its own and that are symbolic links below, with their targets.

    Where there are any, the layer must be unpacked again with that knowledge: its files belong where the links lead.
    """
    found = {path: below.lookup(name) for path, name in outcome.assumed}
    return {path: os.readlink(each.place) for path, each in found.items() if each is not None and each.is_link}


class Finish:
    """The completion of one layer; see the module.

    Args:
        tree: the layer's own directory, private still.
        lower: the trees of the layers below, from the top down.
        most: bytes that may be copied out of the layers below, but for those of the last file.
    """

    def __init__(self, tree: Path, lower: list[Path], rights: Rights, *, most: int = 1 << 37) -> None:
        self._tree = os.fsencode(tree)
        self._trees = [tree, *lower]
        self._below = Stack(lower)
        self._merged = Stack(self._trees)
        self._visible = self._merged
        self._rights = rights
        self._most = most
        self.copied = 0
        """Bytes of file content that were copied."""

    def run(self, outcome: Outcome) -> None:
        """Complete the layer.

        Raises:
            LayerError: a hard link's target is in no layer.
            TooLarge: its links bring up more than they may.
        """
        self._visible = Stack(self._trees[:1] if outcome.opaque_root else self._trees)
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
        found = None if directory.fresh else self._below.lookup(directory.path)
        if not directory.path or (found is not None and found.is_directory and not directory.removed):
            return True
        place = self._place(directory.path)
        with _times_kept([os.path.dirname(place)]):
            try:
                os.rmdir(place)
            except OSError as exc:
                return exc.errno not in (errno.ENOENT, errno.ENOTDIR)
            if directory.removed and self._visible.is_below(directory.path):
                os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
        return False

    def _inherit(self, directory: Unnamed) -> None:
        """Give a directory the attributes it has below, or those of one that is made where nobody has described it."""
        found = None if directory.fresh else self._below.lookup(directory.path)
        place = self._place(directory.path)
        if found is not None and found.is_directory:
            status = found.status
            mode = stat.S_IMODE(status.st_mode)
            attributes = Attributes(mode, status.st_uid, status.st_gid, status.st_mtime_ns, _attributes_of(found.place))
        else:
            group = self._group(directory)
            attributes = Attributes(0o755 if group < 0 else 0o2755, 0, max(group, 0), directory.mtime)
        fd = os.open(place, _DIRECTORY)
        try:
            self._rights.complete(fd, attributes)
        finally:
            os.close(fd)

    def _group(self, directory: Unnamed) -> int:
        """The group a new directory takes over, as mkdir does it in a set-gid directory; -1 where it takes none."""
        if directory.group is not None or not directory.path:
            return -1 if directory.group is None else directory.group
        above = self._below.lookup(directory.path.rpartition(b"/")[0])
        return above.status.st_gid if above is not None and above.status.st_mode & stat.S_ISGID else -1

    def _link(self, target: bytes, names: list[bytes]) -> list[Unnamed]:
        """Make hard links to a file of the layers below: copy it up, then link. Returns the directories made for it."""
        parent, _, last = target.rpartition(b"/")
        where = self._merged.resolve(parent)
        path = where + b"/" + last if where else last
        found = self._below.lookup(path)
        own = self._place(path)
        source = self._place(names[0])
        made: list[Unnamed] = []
        with _times_kept([os.path.dirname(self._place(name)) for name in names]):
            if os.path.lexists(source):
                raise LayerError(f"entry {shown(names[0])}: a hard link to a file, and yet the layer puts something below it")
            if found is None or found.is_directory:
                # The layer may bring the target itself, behind the link.
                if not _is_file(own):
                    raise LayerError(f"entry {shown(names[0])}: a hard link to {shown(target)}, which is a file in no layer")
                source = own
            else:
                self.copied += copy_up(found, source, self._rights)
                if self.copied > self._most:
                    what = f"hard links to more than {self._most} bytes of the layers below"
                    raise TooLarge(f"entry {shown(names[0])}: {what}; PULLONCE_LAYER_MAX_BYTES raises the limit")
                made = self._make_directories(where, found.status.st_mtime_ns)
                self._is_wanted(Unnamed(path, 0))
                if not os.path.lexists(own):
                    with _times_kept([os.path.dirname(own)]):
                        os.link(source, own, follow_symlinks=False)
            for name in names:
                if self._place(name) != source:
                    os.link(source, self._place(name), follow_symlinks=False)
        return made

    def _make_directories(self, path: bytes, mtime: int) -> list[Unnamed]:
        """Make the directories of a path that this layer lacks; returns them, parents first."""
        made: list[Unnamed] = []
        at = b""
        for part in path.split(b"/") if path else ():
            at = at + b"/" + part if at else part
            place = self._place(at)
            if not os.path.lexists(place):
                with _times_kept([os.path.dirname(place)]):
                    os.mkdir(place, 0o700)
                made.append(Unnamed(at, mtime))
        return made

    def _hide_everything(self) -> None:
        """Hide all that lies below, name by name: overlayfs does not look at the attribute of a root."""
        with _times_kept([self._tree]):
            for name in self._below.names(b""):
                place = self._place(name)
                try:
                    status = os.lstat(place)
                except FileNotFoundError:
                    os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
                    continue
                if stat.S_ISDIR(status.st_mode):
                    os.setxattr(place, self._rights.opaque, b"y")

    def _drop_idle_whiteouts(self, whiteouts: list[bytes]) -> None:
        """Remove marks that hide nothing: overlayfs lists them where only one layer has the directory they are in."""
        for path in whiteouts:
            place = self._place(path)
            try:
                idle = is_whiteout(os.lstat(place)) and not self._visible.is_below(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if idle:
                with _times_kept([os.path.dirname(place)]):
                    os.unlink(place)

    def _place(self, path: bytes) -> bytes:
        return self._tree + b"/" + path if path else self._tree


def copy_up(found: Found, place: bytes, rights: Rights) -> int:
    """Copy a file of a lower layer, of whatever kind but a directory, with all its attributes. Returns the bytes of content."""
    status = found.status
    copied = 0
    if stat.S_ISREG(status.st_mode):
        copied = _copy_content(found.place, place)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(found.place), place)
    else:
        os.mknod(place, status.st_mode, status.st_rdev)
    directory = os.open(os.path.dirname(place), _DIRECTORY)
    try:
        rights.own_at(os.path.basename(place), status.st_uid, status.st_gid, dir_fd=directory)
    finally:
        os.close(directory)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(place, stat.S_IMODE(status.st_mode))
    rights.attribute(place, _attributes_of(found.place))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
    return copied


def _copy_content(source: bytes, place: bytes) -> int:
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(place, _CREATE, 0o600)
        try:
            return copy_content(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _attributes_of(place: bytes) -> dict[bytes, bytes]:
    """Extended attributes, but for those by which overlayfs steers."""
    found: dict[bytes, bytes] = {}
    for name in os.listxattr(place, follow_symlinks=False):
        key = os.fsencode(name)
        if not key.startswith(PRIVATE):
            found[key] = os.getxattr(place, key, follow_symlinks=False)
    return found


def _is_file(place: bytes) -> bool:
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISDIR(status.st_mode) and not is_whiteout(status)


@contextmanager
def _times_kept(directories: list[bytes]) -> Iterator[None]:
    """Restore the times of directories in which names are made that no entry of theirs accounts for."""
    times = {place: os.lstat(place) for place in directories}
    yield
    for place, status in times.items():
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

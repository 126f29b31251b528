"""The directories of a layer that is being unpacked: by name, by open descriptor, and nowhere but below the root.

Every directory in the tree was made by this unpack and is opened by one name below its parent's descriptor, never following a
link; symbolic links are followed here, by hand, as if the root were the root of the file system. So no name, link or `..`
of a layer leads out, not even one that is swapped while it is looked at.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator, Mapping

from services.unpacker.tar.entry import MAX_NAME
from services.unpacker.tar.invalid import LayerError, TooLarge, shown
from services.unpacker.tree.rights import Attributes

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40
"""Symbolic links in one name; Linux's own limit."""
_MOST_TOLD = 160 << 20
"""Bytes of what is to be looked up in the layers below, in one report: a million directories that no entry names, say."""
_MAX_OPEN = 384
"""Directories that are open at a time, where the process may have so many; a fourth of them is closed at once."""
_OTHERS = 64
"""Descriptors that a process needs for everything else."""


class NoDirectory(LayerError):
    """A name passes through a file of the same layer."""


class Directory:
    """One directory of the layer."""

    __slots__ = (
        "attributes",
        "children",
        "fd",
        "fresh",
        "group",
        "length",
        "mtime",
        "name",
        "opaque",
        "parent",
        "removed",
        "whiteouts",
    )

    def __init__(self, name: bytes, parent: Directory | None) -> None:
        self.name = name
        self.parent = parent
        self.children: dict[bytes, Directory] = {}
        self.length: int = parent.length + 1 + len(name) if parent is not None and parent.parent is not None else len(name)
        """Bytes of its name from the root on."""
        self.fd = -1
        self.attributes: Attributes | None = None
        """None until an entry names it: then they come from the layers below."""
        self.opaque = False
        """Hides what the layers below have in it."""
        self.removed = False
        """A whiteout of this layer names it."""
        self.whiteouts: list[bytes] = []
        """Names that were removed in it, if a layer below has them."""
        self.fresh = False
        """Whatever the layers below have under its name, this layer had removed before: there is nothing to inherit."""
        self.group: int | None = None
        """Group that it takes over from a set-gid parent, as mkdir does; -1: none, None: ask the layers below."""
        self.mtime = 0
        """Time in nanoseconds that it gets if nobody describes it."""

    def hides_below(self) -> bool:
        """Whether nothing of the layers below can be seen in it."""
        node: Directory | None = self
        while node is not None:
            if node.opaque:
                return True
            node = node.parent
        return False

    def is_removed(self) -> bool:
        """Whether nothing is to be left of it but what this layer puts into it."""
        return self.removed or (self.parent is not None and self.parent.hides_below())

    def path(self) -> bytes:
        """Its name from the root on."""
        parts: list[bytes] = []
        node = self
        while node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return b"/".join(reversed(parts))

    def walk(self) -> Iterator[Directory]:
        """It and all below it, parents first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children.values()


class Directories:
    """The tree, its open descriptors (a bounded number), and how names are looked up in it.

    Args:
        root: descriptor of the layer's root; stays the caller's.
        links_below: symbolic links of the layers below that names of this layer pass through, as far as they are known.
        most: directories there may be. Each is kept in memory to the end: their entries may come in any order.
    """

    def __init__(self, root: int, links_below: Mapping[bytes, bytes], *, most: int = 1_000_000) -> None:
        self.root = Directory(b"", None)
        self.root.fd = root
        self.links: dict[bytes, bytes] = {}
        """Names that shall be hard links to files of the layers below, with their targets."""
        self.assumed: dict[bytes, bytes] = {}
        """Directories that were made because a name passed through them: a layer below may have a link there.

        With the name to look up below: another one where the directory took the place of a hard link to a file below."""
        self._links_below = links_below
        self._most = most
        self._made = 0
        self._told = 0
        self._open: dict[Directory, None] = {}
        self._most_open = most_open()

    def fd(self, directory: Directory) -> int:
        """Open descriptor of a directory, good until the next call."""
        if directory.fd >= 0:
            return directory.fd
        chain = []
        node = directory
        while node.fd < 0 and node.parent is not None:
            chain.append(node)
            node = node.parent
        for step in reversed(chain):
            step.fd = os.open(step.name, _OPEN, dir_fd=node.fd)
            self._open[step] = None
            node = step
            if len(self._open) > self._most_open:
                self._close_oldest(node)
        return directory.fd

    def _close_oldest(self, spared: Directory) -> None:
        for directory in list(self._open)[: max(1, self._most_open // 4)]:
            if directory is not spared:
                self._shut(directory)

    def _shut(self, directory: Directory) -> None:
        if self._open.pop(directory, 0) is None:
            os.close(directory.fd)
            directory.fd = -1

    def close(self) -> None:
        """Close every descriptor but the root's."""
        for directory in list(self._open):
            self._shut(directory)

    def forget(self, directory: Directory) -> None:
        """Take a directory that is being removed out of the tree, with all below it."""
        for node in directory.walk():
            self._shut(node)
        if directory.parent is not None:
            del directory.parent.children[directory.name]

    def find(self, path: bytes, *, mtime: int | None, revive: bool = True) -> Directory | None:
        """The directory that a name means, links followed.

        Directories that are missing are made where `mtime` says what time they get if no layer knows them; otherwise the
        answer is None. One that this layer has removed before is made only to `revive` it.

        Raises:
            LayerError: the name passes through something that is no directory, or through too many links.
        """
        node = self.root
        for part in path.split(b"/") if path else ():
            child = node.children.get(part)
            if child is None:
                return self._find_slowly(path, mtime, revive)
            node = child
        return node

    def _find_slowly(self, path: bytes, mtime: int | None, revive: bool) -> Directory | None:
        node = self.root
        todo = path.split(b"/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                node = node.parent or node
                continue
            if part in (b"", b"."):
                continue
            child = node.children.get(part) or self._enter(node, part, mtime, revive)
            if isinstance(child, Directory):
                node = child
            elif child is None:
                return None
            else:
                links += 1
                if links > _MAX_LINKS:
                    raise LayerError(f"the name {shown(path)} passes through more than {_MAX_LINKS} symbolic links")
                if child[:1] == b"/":
                    node = self.root
                todo += child.split(b"/")[::-1]
        return node

    def _enter(self, node: Directory, part: bytes, mtime: int | None, revive: bool) -> Directory | bytes | None:
        """What a name is that is no directory of the tree yet: a link's target, a directory made now, or None."""
        fd = self.fd(node)
        try:
            found = os.lstat(part, dir_fd=fd)
        except FileNotFoundError:
            return self._enter_missing(node, part, mtime)
        if stat.S_ISLNK(found.st_mode):
            return os.readlink(part, dir_fd=fd)
        if mtime is None:
            return None
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0 and revive:
            os.unlink(part, dir_fd=fd)
            child = self._make_missing(node, part, mtime)
            child.opaque = child.fresh = True
            return child
        where = node.path() + b"/" + part
        raise NoDirectory(f"the layer puts something below {shown(where)}, which it made no directory")

    def _enter_missing(self, node: Directory, part: bytes, mtime: int | None) -> Directory | bytes | None:
        """A name that this layer does not have: a link below, as far as is known, or a directory."""
        hidden = node.hides_below()
        path = node.path() + b"/" + part if node.parent else part
        if not hidden and (target := self._links_below.get(path)) is not None:
            return target
        if mtime is None:
            return None
        child = self._make_missing(node, part, mtime)
        self.tell(64 + 3 * child.length)
        child.fresh = hidden
        if not hidden:
            self.assumed[path] = self.links.get(path, path)
        return child

    def _make_missing(self, node: Directory, part: bytes, mtime: int) -> Directory:
        child = self.make(node, part)
        if child is None:
            raise OSError(errno.EEXIST, "appeared while the layer was unpacked", os.fsdecode(part))
        child.mtime = mtime
        child.group = node.group
        if node.attributes is not None:
            child.group = node.attributes.gid if node.attributes.mode & stat.S_ISGID else -1
        return child

    def tell(self, size: int) -> None:
        """Count bytes of what the layers below are to be asked about.

        Raises:
            TooLarge: that is more than one report holds.
        """
        self._told += size
        if self._told > _MOST_TOLD:
            raise TooLarge(f"removals, links and directories without entries of more than {_MOST_TOLD} bytes of names in all")

    def make(self, parent: Directory, name: bytes) -> Directory | None:
        """Make a directory; None where the name is taken. Private until its attributes are applied."""
        try:
            os.mkdir(name, 0o700, dir_fd=self.fd(parent))
        except FileExistsError:
            return None
        self._made += 1
        if self._made > self._most:
            told = "PULLONCE_LAYER_MAX_ENTRIES raises the limit, of which each is worth ten"
            raise TooLarge(f"more than {self._most} directories; {told}")
        child = parent.children[name] = Directory(name, parent)
        if child.length > MAX_NAME:
            # One name reaches no further; by links made before, they could nest without end.
            raise LayerError(f"a directory {child.length} bytes of name below the root; at most {MAX_NAME} can be reached")
        return child


def most_open() -> int:
    """How many directories may be open: as many as are worth it, or what the limit of this process leaves (getrlimit(2))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN if soft == resource.RLIM_INFINITY else max(8, min(_MAX_OPEN, soft - _OTHERS))

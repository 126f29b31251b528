"""Carry out the steps of a layer below its root: the tree that overlayfs takes as a lower directory.

Only the order of the entries counts, as if they were applied to the layers below one after another; what needs a look at those
layers is left to `finish.py` and listed in the outcome.
"""

import os
import stat
from collections.abc import Mapping

from pullonce.store.disk import chmod_at
from services.unpacker.tar.archive import Archive
from services.unpacker.tar.entry import BLOCK_DEVICE, CHARACTER, SYMLINK, Entry
from services.unpacker.tar.invalid import LayerError, shown
from services.unpacker.tree.directories import Directories, Directory, NoDirectory
from services.unpacker.tree.opened import by_descriptor
from services.unpacker.tree.outcome import Outcome, Unnamed
from services.unpacker.tree.plan import AUFS_LINKS, Action, TreeStep, clean, plan
from services.unpacker.tree.rights import Attributes, Rights
from services.unpacker.tree.sparse import write_sparse

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LAST = (1 << 63) - 1
"""Nanoseconds: times after it, in 2262, and before the epoch become the epoch itself, as containerd has it."""
_NODES = {CHARACTER: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK}


class Layer:
    """One unpack below an open, empty directory.

    Args:
        root: descriptor of the directory that becomes the layer.
        trash: descriptor of a directory on the same file system for what the layer itself replaces.
        links_below: symbolic links of the layers below that names of this layer pass through.
        directories: how many there may be.
    """

    def __init__(
        self, root: int, trash: int, *, rights: Rights, links_below: Mapping[bytes, bytes], directories: int = 1_000_000
    ) -> None:
        self._directories = Directories(root, links_below, most=directories)
        self._trash = trash
        self._trashed = 0
        self._rights = rights
        self._size = 0
        self.completed = 0
        """Directories that have all their attributes."""
        self._links = self._directories.links
        self._last: tuple[bytes, Directory] = (b"", self._directories.root)

    def unpack(self, archive: Archive) -> Outcome:
        """Carry out all entries.

        Raises:
            LayerError: the content of the layer is at fault; the tree below the root is to be thrown away.
            OSError: the file system is.
        """
        try:
            for entry in archive:
                step = plan(entry)
                try:
                    self._carry_out(step, entry, archive)
                except LayerError as exc:
                    raise type(exc)(f"entry {shown(entry.name)}: {exc}") from exc
                except OSError as exc:
                    raise OSError(exc.errno, f"{exc.strerror} (entry {shown(entry.name)})") from exc
            archive.drain()
            self._drop_aufs_links()
            self._complete_directories()
            return self._outcome(archive)
        finally:
            self._directories.close()

    def _carry_out(self, step: TreeStep, entry: Entry, archive: Archive) -> None:
        action, path, name = step
        if action is Action.NOTHING:
            return
        if not 0 <= entry.mtime <= _LAST:
            entry.mtime = 0
        directory = self._last[1] if path == self._last[0] else self._parent(step, entry)
        if directory is None:
            return
        if self._links and name:
            self._links.pop(_join(directory, name), None)
        match action:
            case Action.FILE:
                self._file(directory, name, entry, archive)
            case Action.DIRECTORY:
                self._directory(directory, name, entry)
            case Action.LINK:
                self._link(directory, name, entry)
            case Action.NODE:
                self._node(directory, name, entry)
            case Action.WHITEOUT:
                self._whiteout(directory, name)
            case Action.OPAQUE:
                directory.opaque = True
            case Action.ROOT:
                directory.attributes = _attributes(entry)

    def _parent(self, step: TreeStep, entry: Entry) -> Directory | None:
        """The directory that a step is in; None where it is to remove something in one that cannot be there."""
        removing = step.action in (Action.WHITEOUT, Action.OPAQUE)
        try:
            directory = self._directories.find(step.parent, mtime=entry.mtime, revive=not removing)
        except NoDirectory:
            if removing:
                return None
            raise
        if directory is not None:
            self._last = (step.parent, directory)
        return directory

    def _file(self, directory: Directory, name: bytes, entry: Entry, archive: Archive) -> None:
        fd = directory.fd if directory.fd >= 0 else self._directories.fd(directory)
        mode = entry.mode
        try:
            file = os.open(name, _CREATE, mode & 0o777, dir_fd=fd)
        except FileExistsError:
            self._displace(directory, name)
            file = os.open(name, _CREATE, mode & 0o777, dir_fd=self._directories.fd(directory))
        try:
            if entry.sparse is not None:
                self._size += write_sparse(file, entry, archive)
            else:
                self._size += entry.size
                while (data := archive.data()) is not None:
                    written = os.write(file, data)
                    while written < len(data):
                        written += os.write(file, data[written:])
            rights = self._rights
            if entry.uid != rights.user or entry.gid != rights.group:
                rights.own(file, entry.uid, entry.gid)
            if mode & 0o7000:
                os.fchmod(file, mode)
            if entry.xattrs:
                rights.attribute_file(file, entry.xattrs, mode)
            os.utime(file, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(file)

    def _directory(self, parent: Directory, name: bytes, entry: Entry) -> None:
        directory = parent.children.get(name) or self._directories.make(parent, name)
        if directory is None:
            # Something of this layer that was no directory has hidden what lies below; that does not come back.
            self._displace(parent, name)
            directory = self._directories.make(parent, name)
            if directory is None:
                raise FileExistsError(f"{shown(name)} appeared while the layer was unpacked")
            directory.opaque = True
        directory.attributes = _attributes(entry)

    def _node(self, directory: Directory, name: bytes, entry: Entry) -> None:
        fd = self._directories.fd(directory)
        try:
            made = self._make_node(fd, name, entry)
        except FileExistsError:
            self._displace(directory, name)
            fd = self._directories.fd(directory)
            made = self._make_node(fd, name, entry)
        if not made:
            return
        self._rights.own_at(name, entry.uid, entry.gid, dir_fd=fd)
        if entry.kind != SYMLINK and entry.mode & 0o7000:
            chmod_at(name, entry.mode, dir_fd=fd)
        if entry.xattrs:
            self._rights.attribute(by_descriptor(fd, name), entry.xattrs)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=fd, follow_symlinks=False)

    def _make_node(self, fd: int, name: bytes, entry: Entry) -> bool:
        if entry.kind == SYMLINK:
            if not entry.link:
                raise LayerError("a symbolic link without a target")
            os.symlink(entry.link, name, dir_fd=fd)
            return True
        kind = _NODES.get(entry.kind)
        if kind is None:
            os.mknod(name, stat.S_IFIFO | entry.mode, dir_fd=fd)
            return True
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise LayerError(f"device number {major}:{minor} is out of range")
        return self._rights.device(name, kind | entry.mode, os.makedev(major, minor), dir_fd=fd)

    def _link(self, directory: Directory, name: bytes, entry: Entry) -> None:
        target = clean(entry.link)
        path, _, last = target.rpartition(b"/")
        if not last:
            raise LayerError(f"a hard link to {shown(entry.link)}, which is no file")
        source = self._directories.find(path, mtime=None)
        if source is None:
            return self._link_later(directory, name, target)
        if source is directory and last == name:
            return None
        where = _join(source, last)
        if where in self._links:
            return self._link_later(directory, name, self._links[where])
        if (child := source.children.get(last)) is not None:
            if child.attributes is None and not child.fresh:
                # A name merely passed through it: below, it may be a link, or a file.
                return self._link_later(directory, name, where)
            raise LayerError(f"a hard link to {shown(entry.link)}, which is a directory")
        try:
            found = os.lstat(last, dir_fd=self._directories.fd(source))
        except FileNotFoundError:
            return self._link_later(directory, name, where)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            raise LayerError(f"a hard link to {shown(entry.link)}, which the layer removed before")
        return self._link_now(directory, name, source, last)

    def _link_now(self, directory: Directory, name: bytes, source: Directory, last: bytes) -> None:
        def link() -> None:
            # Opening one descriptor may close another, and its number may be another directory's then.
            target = os.dup(self._directories.fd(directory))
            try:
                os.link(last, name, src_dir_fd=self._directories.fd(source), dst_dir_fd=target, follow_symlinks=False)
            finally:
                os.close(target)

        try:
            link()
        except FileExistsError:
            self._displace(directory, name)
            link()

    def _link_later(self, directory: Directory, name: bytes, target: bytes) -> None:
        """The target is not in this layer (yet): the layers below will show."""
        try:
            self._displace(directory, name)
        except FileNotFoundError:
            pass
        self._directories.tell(directory.length + len(name) + len(target))
        self._links[_join(directory, name)] = target

    def _whiteout(self, directory: Directory, name: bytes) -> None:
        """What this very layer brought stays, even when it came first in the archive."""
        child = directory.children.get(name)
        if child is not None:
            child.opaque = child.removed = True
            return
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._directories.fd(directory))
        except FileExistsError:
            return
        self._directories.tell(directory.length + len(name))
        directory.whiteouts.append(name)

    def _displace(self, directory: Directory, name: bytes) -> None:
        """Remove what the layer has put under a name. Trees go to the trash: to delete them is nobody's wait."""
        child = directory.children.get(name)
        self._last = (b"", self._directories.root)
        if child is None:
            os.unlink(name, dir_fd=self._directories.fd(directory))
            return
        if self._links:
            inside = _join(directory, name) + b"/"
            for path in [path for path in self._links if path.startswith(inside)]:
                del self._links[path]
        self._directories.forget(child)
        self._trashed += 1
        os.rename(name, b"%d" % self._trashed, src_dir_fd=self._directories.fd(directory), dst_dir_fd=self._trash)

    def _drop_aufs_links(self) -> None:
        if AUFS_LINKS in self._directories.root.children:
            self._displace(self._directories.root, AUFS_LINKS)

    def _complete_directories(self) -> None:
        """Give directories their attributes once nothing more is put into them: deepest first."""
        rights = self._rights
        for directory in reversed(list(self._directories.root.walk())):
            if directory.opaque and directory.parent is not None:
                os.setxattr(self._directories.fd(directory), rights.opaque, b"y")
            if directory.attributes is not None:
                # By its own descriptor: chmod would follow a link that somebody has put under its name meanwhile.
                rights.complete(self._directories.fd(directory), directory.attributes)
            self.completed += 1

    def _outcome(self, archive: Archive) -> Outcome:
        tree = list(self._directories.root.walk())
        return Outcome(
            entries=archive.entries,
            size=self._size,
            left_out=dict(self._rights.left_out),
            assumed=list(self._directories.assumed.items()),
            unnamed=[Unnamed(d.path(), d.mtime, d.fresh, d.group, d.is_removed()) for d in tree if d.attributes is None],
            links=list(self._links.items()),
            whiteouts=[_join(directory, name) for directory in tree for name in directory.whiteouts],
            opaque_root=self._directories.root.opaque,
        )


def _attributes(entry: Entry) -> Attributes:
    return Attributes(entry.mode, entry.uid, entry.gid, entry.mtime, entry.xattrs)


def _join(directory: Directory, name: bytes) -> bytes:
    path = directory.path()
    return path + b"/" + name if path else name

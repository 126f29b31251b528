"""The root of a bundle: the layers of an image, mounted with an upper directory of their own.

rootfs/            where it is mounted
overlay/upper      what was written; made to look as the image's own root does
overlay/work       overlayfs' own
"""

import errno
import os
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from pullonce.bundle.errors import BundleRefused
from pullonce.bundle.inside import make_place, opened
from pullonce.bundle.spec import Directory
from pullonce.oci.mappings import Mappings
from pullonce.store import idmapping
from pullonce.store.mounting import MountFailed, make_read_only, mount, shared_options, unmount
from pullonce.store.snapshots import Snapshots
from pullonce.store.suitable import StoreUnsuitable, file_system, opaque_attribute
from pullonce.store.tables import users_of
from pullonce.store.trees import remove_tree
from pullonce.store.upper import make_upper
from schemas.oci import ChainID

_NAMED = 3
"""Processes that an error names."""
_PATIENCE = 2.0
"""Seconds for which somebody may still have it mounted."""


class Rootfs:
    """The root of one bundle.

    Args:
        place: the bundle's directory.
    """

    def __init__(self, place: Path) -> None:
        self.path = place / "rootfs"
        self._own = place / "overlay"

    @property
    def is_mounted(self) -> bool:
        return self.path.is_mount()

    def lay(self, snapshots: Snapshots, chain_id: ChainID, mappings: Mappings | None) -> None:
        """Make its directories. Repeating it is harmless.

        Raises:
            BundleRefused: overlayfs cannot write to the file system here, or not read these layers right.
            MappingInvalid: whoever owns the image's root is nobody on this machine.
            OSError: the disk refuses.
        """
        self.path.mkdir(exist_ok=True)
        self._own.mkdir(mode=0o700, exist_ok=True)
        try:
            mark = opaque_attribute(self._own, self._own)
        except StoreUnsuitable:
            raise BundleRefused(
                f"{self._own.parent} lies on a file system ({file_system(self._own) or 'unknown'}) to which overlayfs cannot "
                "write; choose a directory on ext4, xfs, btrfs or tmpfs"
            ) from None
        if mark.startswith(b"user.") and not all(each.userxattr for each in snapshots.chain(chain_id)):
            raise BundleRefused(
                f"layers of {snapshots.root} were unpacked by root, whose marks of what they hide count for root alone; use a "
                "store of your own (PULLONCE_HOME)"
            )
        below = snapshots.path(chain_id)
        root = below.stat()
        owner = mappings.owner(root.st_uid, root.st_gid) if mappings else None
        make_upper(self._own / "upper", below, owner)
        (self._own / "work").mkdir(mode=0o711, exist_ok=True)

    def mount(self, snapshots: Snapshots, chain_id: ChainID, mappings: Mappings | None, *, read_only: bool) -> None:
        """Mount it, where it is not yet.

        Raises:
            SnapshotMissing: a layer is not there.
            MountFailed: the kernel refuses.
        """
        if self.is_mounted:
            return
        overlay = snapshots.overlay(chain_id, upper=self._own / "upper", work=self._own / "work")
        overlay = msgspec.structs.replace(overlay, options=[*overlay.options, *shared_options()])
        mount(overlay, self.path, suid=True, dev=True, read_only=read_only, mappings=mappings)

    def close(self, mounts: Iterable[Mapping[str, str]], cwd: str, mappings: Mappings | None) -> None:
        """Make it read-only, once there is what a runtime could not make later: places of mounts, and the process's own.

        Args:
            mounts: in the runtime's words, in order; what lies below one before it is that one's affair.
            cwd: the process's directory; made as runtimes do, the container's root's.

        Raises:
            ConfigInvalid: the image has something of another kind there.
            OSError: the disk refuses.
        """
        owner = mappings.owner(0, 0) if mappings else (0, 0)
        before = self.path.stat()
        covered: list[str] = []
        for each in mounts:
            path = each["destination"]
            if not any(path.startswith(f"{above}/") for above in covered):
                is_file = each["type"] == "bind" and not Path(each["source"]).is_dir()
                make_place(self.path, path, directory=not is_file, owner=owner)
            covered.append(path)
        if not any(f"{cwd}/".startswith(f"{above}/") for above in covered):
            make_place(self.path, cwd, directory=True, owner=owner)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        make_read_only(self.path)

    def directory(self, path: str, mappings: Mappings | None) -> Directory | None:
        """A directory of the image, in the container's own ids; None where there is none."""
        try:
            with opened(self.path, path) as found:
                status = os.fstat(found)
                if not stat.S_ISDIR(status.st_mode):
                    return None
                names = list(Path(f"/proc/self/fd/{found}").iterdir())
        except OSError:
            return None
        uid, gid = mappings.inside(status.st_uid, status.st_gid) if mappings else (status.st_uid, status.st_gid)
        return Directory(uid, gid, stat.S_IMODE(status.st_mode), not names)

    def unmount(self, *, force: bool) -> None:
        """Unmount it everywhere; it is back in its place where a container still uses it.

        Args:
            force: even then.

        Raises:
            BundleRefused: it is in use.
            MountFailed: it cannot be unmounted.
        """
        while self.is_mounted:
            self._unmount(force=force)

    def _unmount(self, *, force: bool) -> None:
        device = self.path.stat().st_dev
        kept = -1 if force else self._kept()
        try:
            self._off(force=force)
            # Behind it, since that reaches namespaces which only follow ours: those of services, not of containers.
            users = [] if force else _users(device, self.path)
            if users:
                idmapping.attach(kept, self.path)
                told = ", ".join(map(_process, users[:_NAMED]))
                raise BundleRefused(f"{self.path} is in use by {told}; end the container first, or say --force")
        finally:
            if kept >= 0:
                os.close(kept)

    def _off(self, *, force: bool) -> None:
        try:
            unmount(self.path, lazily=force)
        except MountFailed as exc:
            if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EBUSY:
                raise BundleRefused(
                    f"{self.path} is in use by a process of this machine; end it first, or say --force"
                ) from exc
            raise

    def _kept(self) -> int:
        """The mount once more, in no place, to put back."""
        try:
            return idmapping.clone(self.path)
        except OSError as exc:
            raise MountFailed(f"cannot unmount {self.path}: {exc.strerror}") from exc

    def remove(self) -> None:
        """Remove what it is made of, once it is unmounted. Repeating it is harmless.

        Raises:
            BundleRefused: something else lies in its place.
            OSError: the disk refuses.
        """
        remove_tree(self._own)
        try:
            self.path.rmdir()
        except FileNotFoundError:
            pass
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            raise BundleRefused(f"{self.path} has files that are no part of the bundle; move them away") from exc


def _users(device: int, place: Path) -> list[int]:
    """Containers that have a file system as their own, or are just ending."""
    until = time.monotonic() + _PATIENCE
    while (found := users_of(device, place)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def _process(number: int) -> str:
    try:
        return f"process {number} ({Path(f'/proc/{number}/comm').read_text().strip()})"
    except OSError:
        return f"process {number}"


def check_reach(place: Path, mappings: Mappings) -> None:
    """Whether the root of a container with a user namespace can get to its files: the runtime goes there as that user.

    Raises:
        BundleRefused: a directory above keeps it out.
    """
    uid, gid = mappings.owner(0, 0)
    for directory in reversed(place.parents):
        status = directory.stat()
        mode = status.st_mode
        shift = 6 if status.st_uid == uid else 3 if status.st_gid == gid else 0
        if not mode >> shift & 1:
            raise BundleRefused(
                f"user {uid}, who is the container's root, may not pass {directory} (mode {stat.S_IMODE(mode):04o}); choose "
                "another directory, or let others pass it (chmod o+x)"
            )

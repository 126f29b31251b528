"""Unpacked layers by ChainID, as whoever reads them sees them: is one there, what lies below it, how is it mounted.

    l/<20 characters>/                    the layer's tree, a lower directory for overlayfs
    snapshots/sha256-<hex>/fs             a link to it
    snapshots/sha256-<hex>/snapshot.json  a `Snapshot`
    snapshots/sha256-<hex>/unsynced       while the tree may not be on the disk yet: the boot it was written in

The unpacker alone writes here: it renames complete trees into place (`placing`). A snapshot with `unsynced` of another boot may
have lost content in a power cut: it counts as absent, until the unpacker removes it.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from pullonce.errors import PullonceError
from pullonce.store.disk import sync_file_system
from pullonce.store.layout import EMPTY_TREE, RECORD, UNSYNCED, Layout, short_name, spelled
from schemas.oci import ChainID, DiffID, Digest

_MOST_PARENTS = 10_000


class SnapshotMissing(PullonceError):
    """A snapshot, or one below it, is not in the store; pulling the image again brings it back."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of an unpacked layer."""

    chain_id: ChainID
    diff_id: DiffID
    blob: Digest
    parent: ChainID = ChainID("")
    """ChainID of the layer below; empty for the lowest."""
    entries: int = 0
    size: int = 0
    """Bytes of file content as stored: holes of sparse files take none."""
    left_out: dict[str, int] = {}
    """What an unprivileged unpacker could not make, by kind."""
    userxattr: bool = False
    """Opaque directories are marked for mounts with the option `userxattr`."""


class Snapshots:
    """The snapshots of one store, read.

    Args:
        root: the store's directory (`config.store_root`).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root)
        self._snapshots, self._trees = os.fspath(self.layout.snapshots), os.fspath(self.layout.trees)
        self._boot = boot_id().encode()
        self._parents: dict[ChainID, ChainID] = {}
        """What was read of which snapshot lies below which; a ChainID says that for ever. The latest `_MOST_PARENTS`."""

    def directory(self, chain_id: ChainID) -> Path:
        """Where a snapshot lies, whether or not it is there."""
        return self.layout.snapshot(chain_id)

    def path(self, chain_id: ChainID) -> Path:
        """Its tree."""
        return self.layout.tree(chain_id)

    def has(self, chain_id: ChainID) -> bool:
        """Whether the snapshot is there: complete, verified, and not left in doubt by a power cut."""
        # Without its tree it is nothing: then it is unpacked again, whatever took the tree away. All of a chain is asked for
        # again and again: names are put together as text, which takes a fifth of the time that paths do.
        there = f"{self._snapshots}/{spelled(chain_id)}"
        return _is_there(f"{there}/{RECORD}") and _is_there(f"{self._trees}/{short_name(chain_id)}") and not self._doubts(there)

    def in_doubt(self, chain_id: ChainID) -> bool:
        """Whether a snapshot was written in an earlier boot and not synced before it ended."""
        return self._doubts(f"{self._snapshots}/{spelled(chain_id)}")

    def _doubts(self, snapshot: str) -> bool:
        try:
            mark = os.open(f"{snapshot}/{UNSYNCED}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return os.read(mark, len(self._boot) + 1) != self._boot
        finally:
            os.close(mark)

    def get(self, chain_id: ChainID) -> Snapshot:
        """What is known of a snapshot.

        Raises:
            SnapshotMissing: it is not there.
        """
        try:
            if self.has(chain_id):
                return msgspec.json.decode(self.layout.record(chain_id).read_bytes(), type=Snapshot)
        except FileNotFoundError:
            pass
        raise SnapshotMissing(f"{chain_id} is not unpacked in {self.root}; pull the image again")

    def parent(self, chain_id: ChainID) -> ChainID:
        """ChainID of the layer below a snapshot; empty for the lowest. It is not looked whether the snapshot is there still.

        Raises:
            SnapshotMissing: it was never read before, and is not there.
        """
        known = self._parents.get(chain_id)
        if known is None:
            known = self.get(chain_id).parent
            self._parents[chain_id] = known
            if len(self._parents) > _MOST_PARENTS:
                del self._parents[next(iter(self._parents))]
        return known

    def chain(self, chain_id: ChainID) -> Iterator[Snapshot]:
        """A snapshot and all below it, from the top down.

        Raises:
            SnapshotMissing: one of them is not there.
        """
        while chain_id:
            snapshot = self.get(chain_id)
            yield snapshot
            chain_id = snapshot.parent

    def lowerdirs(self, chain_id: ChainID) -> list[Path]:
        """The trees of a chain, from the top down, as overlayfs wants them; raises SnapshotMissing."""
        return [self.path(snapshot.chain_id) for snapshot in self.chain(chain_id)]

    def overlay(self, chain_id: ChainID, *, upper: Path | None = None, work: Path | None = None) -> "Overlay":
        """How a chain is mounted: read-only, or with an upper and a work directory of the caller's on one file system.

        Raises:
            SnapshotMissing: one of the chain is not there.
        """
        chain = list(self.chain(chain_id))
        names = [short_name(snapshot.chain_id) for snapshot in chain]
        if len(names) == 1 and upper is None:
            # overlayfs wants two lower directories where there is no upper one.
            names.append(EMPTY_TREE)
        options = ["userxattr"] if any(snapshot.userxattr for snapshot in chain) else []
        return Overlay(base=self.layout.trees, names=names, options=options, upper=upper, work=work)


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """An overlay mount: lower directories by short names below `base`, from the top down."""

    base: Path
    names: list[str]
    options: list[str]
    upper: Path | None = None
    work: Path | None = None

    @property
    def writable(self) -> bool:
        return self.upper is not None

    def data(self, *, absolute: bool = True) -> str:
        """The mount's options as overlayfs reads them; with relative names it is to be mounted from within `base`."""
        lower = [escaped(self.base / name) if absolute else name for name in self.names]
        parts = [*self.options, "lowerdir=" + ":".join(lower)]
        if self.upper is not None and self.work is not None:
            parts += [f"upperdir={escaped(self.upper)}", f"workdir={escaped(self.work)}"]
        return ",".join(parts)

    def arguments(self, target: str) -> list[str]:
        """Arguments of mount(8)."""
        access = "rw" if self.writable else "ro"
        return ["-t", "overlay", "overlay", "-o", f"{access},{self.data()}", target]

    def describe(self) -> dict[str, object]:
        """The same for programs, in the form containerd and runc know: type, source, options."""
        return {"type": "overlay", "source": "overlay", "options": ["rw" if self.writable else "ro", *_split(self.data())]}


def _is_there(path: str) -> bool:
    try:
        os.stat(path)  # noqa: PTH116 - see `Snapshots.has`
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: no name of a file, whoever asks for it
        return False
    return True


def sync(root: Path, marks: Iterable[Path]) -> None:
    """Sync the file system of a store, then remove the marks of snapshots that were committed before.

    Raises:
        OSError: the disk is at fault.
    """
    sync_file_system(root)
    for mark in marks:
        mark.unlink(missing_ok=True)


def boot_id() -> str:
    """Names the time since the machine was started; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def escaped(path: Path) -> str:
    """A path as overlayfs reads it in its options: `:`, `,` and the backslash itself stand for themselves behind one."""
    text = os.fspath(path)
    for special in ("\\", ":", ","):
        text = text.replace(special, "\\" + special)
    return text


def _split(data: str) -> list[str]:
    """Cut options at the commas that are not escaped."""
    return [part.replace("\0", "\\,") for part in data.replace("\\,", "\0").split(",")]

"""Unpacked layers by ChainID, as whoever reads them sees them: is one there, what lies below it, how is it mounted.

    l/<20 characters>/                    the layer's tree, a lower directory for overlayfs
    snapshots/sha256-<hex>/fs             a link to it
    snapshots/sha256-<hex>/snapshot.json  a `Snapshot`
    snapshots/sha256-<hex>/unsynced       while the tree may not be on the disk yet: the boot it was written in

The unpacker alone writes here: it renames complete trees into place (`placing`). A snapshot with `unsynced` of another boot may
have lost content in a power cut: it counts as absent, until the unpacker removes it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pullonce.errors import PullonceError
from pullonce.store.layout import EMPTY_TREE, Layout, short_name
from schemas.oci import ChainID, DiffID, Digest


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
        self._boot = boot_id()

    def directory(self, chain_id: ChainID) -> Path:
        """Where a snapshot lies, whether or not it is there."""
        return self.layout.snapshot(chain_id)

    def path(self, chain_id: ChainID) -> Path:
        """Its tree."""
        return self.layout.tree(chain_id)

    def has(self, chain_id: ChainID) -> bool:
        """Whether the snapshot is there: complete, verified, and not left in doubt by a power cut."""
        # Without its tree it is nothing: then it is unpacked again, whatever took the tree away.
        return self.layout.record(chain_id).exists() and self.layout.tree(chain_id).exists() and not self.in_doubt(chain_id)

    def in_doubt(self, chain_id: ChainID) -> bool:
        """Whether a snapshot was written in an earlier boot and not synced before it ended."""
        try:
            return self.layout.unsynced(chain_id).read_text() != self._boot
        except FileNotFoundError:
            return False

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

"""Where layers are unpacked before anybody sees them, and how they become snapshots: by one rename.

Each unpacker process has a directory of its own below `staging/`, held by a lock on it; what lies in one whose lock is free
belongs to a dead process and is removed. Nothing in here is ever visible.
"""

import asyncio
import fcntl
import logging
import os
import secrets
from pathlib import Path

import msgspec

from pullonce.failpoints import reach
from pullonce.store import placing
from pullonce.store.disk import disk_errors
from pullonce.store.snapshots import Snapshot, Snapshots, boot_id
from pullonce.store.suitable import opaque_attribute
from pullonce.store.trees import is_abandoned, remove_tree
from schemas.oci import ChainID
from services.unpacker.threads import to_its_end

log = logging.getLogger(__name__)

_PREFIX = "unpack-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft:
    """One layer on its way."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.snapshot = place / "snapshot"
        self.tree = self.snapshot / "fs"
        self.trash = place / "trash"
        self.replaced: list[Path] = []
        self.empty = True
        """Nothing is in its place: it was not begun, or became a snapshot and replaced nothing of its own."""


class Staging:
    """The private directory of this process, on the file system of the store.

    Raises:
        Permanent: the disk refuses (`disk.full` and the like); from every method.
        StoreUnsuitable: no layer can be unpacked on the store's file system; from `open`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._snapshots = Snapshots(root)
        self._layout = self._snapshots.layout
        self._directories = [self._layout.staging, self._layout.snapshots, self._layout.trees]
        self._place = root
        self._lock = -1
        self._count = 0
        self._boot = boot_id()
        self._rubbish: asyncio.Queue[Path] = asyncio.Queue()
        self._spare: list[Draft] = []
        """Places of drafts that are empty again: to make one and remove it costs more than a small layer."""
        self._group = -1
        """Who beside us may look whether a snapshot is there: the store's own group, where the store is somebody else's."""
        self.opaque = b"trusted.overlay.opaque"
        """The attribute by which this process marks opaque directories."""

    def open(self) -> None:
        """Make it, hold it, and remove what dead processes and power cuts have left."""
        self._place = self._layout.staging / f"{_PREFIX}{secrets.token_hex(8)}"
        with disk_errors(self._place):
            for path in self._directories:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._group = _foreign_group(self._root)
            self._place.mkdir(mode=0o700)
            self._lock = os.open(self._place, _DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _forbid_inheritance(self._lock)
            self.opaque = opaque_attribute(self._place, self._root)
            for path in self._layout.staging.glob(f"{_PREFIX}*"):
                if path != self._place and is_abandoned(path):
                    self.discard(path)
            if taken := placing.take_over(self._layout):
                log.info("the trees of an earlier version's snapshots have their short names now", extra={"snapshots": taken})
            for chain_id in placing.all_of(self._layout):
                if self._snapshots.in_doubt(chain_id):
                    self._withdraw(chain_id)

    def close(self) -> None:
        """Remove it, with all it still holds. What cannot be removed now, the next process removes."""
        try:
            remove_tree(self._place)
        except OSError:
            pass
        self._let_go()

    def draft(self) -> Draft:
        """Begin a layer: an empty tree."""
        if not all(path.is_dir() for path in (self._place, *self._directories)):
            self._spare.clear()
            self._let_go()
            self.open()  # the store was wiped under us
        if self._spare:
            draft, missing = self._spare.pop(), []
        else:
            self._count += 1
            draft = Draft(self._place / str(self._count))
            missing = [draft.place]
        with disk_errors(draft.place):
            draft.empty = False
            # No user but ours ever looks into a snapshot by this path: a layer's set-id programs are not for them.
            for path in (*missing, draft.trash, draft.snapshot, draft.tree):
                path.mkdir(mode=0o700)
        return draft

    def commit(self, draft: Draft, snapshot: Snapshot) -> bool:
        """Make a finished layer visible; False where it was there already, made by somebody else."""
        chain_id = snapshot.chain_id
        with disk_errors(self._layout.snapshot(chain_id)):
            (draft.snapshot / "snapshot.json").write_bytes(msgspec.json.encode(snapshot))
            (draft.snapshot / "unsynced").write_text(self._boot)
            if self._group >= 0:
                os.chown(draft.snapshot, -1, self._group)
                draft.snapshot.chmod(0o710)
            reach("snapshot.made")
            replaced = [self._fresh_place(), self._fresh_place()]
            try:
                made = placing.put_in(
                    self._layout, chain_id, draft.snapshot, there=lambda: self._snapshots.has(chain_id), replaced=replaced
                )
                draft.empty = made and _removed_empty(draft.trash)
                return made
            finally:
                draft.replaced += [place for place in replaced if place.exists()]  # this is a thread; the queue is the loop's

    def give_back(self, draft: Draft) -> None:
        """What is left of a draft, and of what it replaced, is wanted no more."""
        for place in draft.replaced:
            self.discard(place)
        draft.replaced.clear()
        if draft.empty:
            self._spare.append(draft)
        else:
            self.discard(draft.place)

    def discard(self, place: Path) -> None:
        """Have a directory removed, some time."""
        self._rubbish.put_nowait(place)

    async def clean(self) -> None:
        """Remove what was discarded, and what could not be removed before. For ever; told to stop, it ends what it is at: two
        that remove one tree leave some of it."""
        left: list[Path] = []
        while True:
            left.append(await self._rubbish.get())
            left = [place for place in left if not await to_its_end(_removed, place)]

    def _let_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _withdraw(self, chain_id: ChainID) -> None:
        """Take a snapshot that does not count out of sight."""
        place = self._fresh_place()
        placing.take_out(self._layout, chain_id, place)
        self.discard(place)

    def _fresh_place(self) -> Path:
        """A name for what is to be removed."""
        self._count += 1
        return self._place / f"withdrawn-{self._count}"


def _removed_empty(place: Path) -> bool:
    """Remove a directory with nothing in it; False where there is something."""
    try:
        place.rmdir()
    except OSError:
        return False
    return True


def _removed(place: Path) -> bool:
    """Remove a tree; False where the disk refuses that now, a read-only one say."""
    try:
        remove_tree(place)
    except OSError as exc:
        log.warning("%s cannot be removed yet: %s", place, exc)
        return False
    return True


def _foreign_group(root: Path) -> int:
    """Group of a store that belongs to another user, a fetcher without privileges say; -1 where it is our own."""
    status = root.stat()
    return -1 if status.st_uid == os.geteuid() else status.st_gid


def _forbid_inheritance(directory: int) -> None:
    """No set-gid bit and no default ACL of the store's shall be handed down to what is made in here."""
    os.fchmod(directory, 0o700)
    try:
        os.removexattr(directory, "system.posix_acl_default")
    except OSError:
        pass

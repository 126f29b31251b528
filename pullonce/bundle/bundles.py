"""Bundles on the disk: made, mounted again, taken apart, each in steps of which any may be the last.

    DIR/                 closed to others
    DIR/pullonce.json    a `Bundle`: what it is made of, for as long as anything of it is there
    DIR/rootfs, overlay  see `rootfs`
    DIR/config.json      what a runtime reads; written last, so a bundle that has none is not finished

A bundle is a hold of its store (`holding`), written and synced before the layers are looked at and mounted: they stay until it
is taken apart, mounted or not. `pullonce.json` comes before the hold and goes behind it. It names the store and the hold, so
whatever a crash leaves is found: `bundle` begins anew what is not finished, and `unbundle` removes what there is.
"""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pullonce.bundle.errors import BundleRefused
from pullonce.bundle.holding import BundleHolds
from pullonce.bundle.place import give_back, held_directory, taken
from pullonce.bundle.record import CONFIG, STATE, Bundle, bundle_at, encode, no_bundle, read
from pullonce.bundle.rootfs import Rootfs, check_reach
from pullonce.failpoints import reach
from pullonce.store.content import ContentStore
from pullonce.store.disk import disk_errors, replace_file, sync_directory
from pullonce.store.snapshots import SnapshotMissing, Snapshots

_DRAFTS = (f".{STATE}.", f".{CONFIG}.")
_OURS = (STATE, CONFIG, "rootfs", "overlay")


Describe = Callable[[Rootfs], dict[str, Any]]
"""Makes the runtime's config, once the root can be looked at."""


class Bundles:
    """The bundles of one store."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._holds = BundleHolds(content.root)
        self._snapshots = Snapshots(content.root)

    def all(self) -> list[Bundle]:
        """Every bundle that the store keeps layers for. Raises HoldUnreadable, BundleRefused."""
        return self._holds.all()

    def make(self, wanted: Bundle, describe: Describe) -> None:
        """Make a bundle, or finish one of which a part is there. What was begun is undone where that does not go well.

        Raises:
            BundleRefused: its directory is not empty, not ours, or cannot be used; or layers are kept for one that was in it.
            SnapshotMissing: a layer is not there any more; nothing was made.
            ConfigInvalid, UserUnknown, MappingInvalid: there is no config for it.
            MountFailed, Permanent: the kernel or the disk refuses.
        """
        place = Path(wanted.directory)
        if place.is_relative_to(self._content.root.resolve()):
            raise BundleRefused(f"{place} lies in the store, which removes what it does not know; choose another directory")
        with taken(place, self._unfinished) as (known, made, before):
            again = known is not None and known.store == wanted.store and self._holds.is_own(known, place)
            number = (known.id if known and again else "") or secrets.token_hex(8)
            wanted = msgspec.structs.replace(wanted, id=number, made=made, before=before)
            reach("bundle.opened")
            try:
                self._refuse_claimed(place, known)
                if wanted.mappings is not None:
                    check_reach(place, wanted.mappings)
                if known is not None:
                    self._begin_anew(known, wanted, place)
                self._make(wanted, place, describe)
            except BaseException:
                self._undo(known, wanted, place)
                raise

    def _refuse_claimed(self, place: Path, known: Bundle | None) -> None:
        """Raises BundleRefused, where the store keeps layers for another bundle that was here: it may have been moved."""
        for each in self._holds.at(place):
            if known is None or each.id != known.id:
                raise BundleRefused(
                    f"the store still keeps the layers of a bundle of {each.reference} that was in {place}: if that was moved, "
                    f"say `pullonce bundle --remount` where it is now; if it is gone, `pullonce unbundle {place}`"
                )

    def _begin_anew(self, known: Bundle, wanted: Bundle, place: Path) -> None:
        """Remove what an earlier attempt left, which may have been about another image of another store."""
        _clear(known, place, force=True)
        if known.id != wanted.id:
            BundleHolds(Path(known.store)).drop_own(known, place)
        Rootfs(place).remove()

    def _make(self, wanted: Bundle, place: Path, describe: Describe) -> None:
        with disk_errors(place):
            if wanted.made:
                with suppress(PermissionError):  # who may make a directory there may not always list it
                    sync_directory(place.parent)
            replace_file(place / STATE, encode(wanted))
            reach("bundle.begun")
            self._hold(wanted)
            reach("bundle.held")
            if wanted.mappings is not None:
                place.chmod(0o710)  # the container's root goes there as who he is on this machine
                os.chown(place, -1, wanted.mappings.owner(0, 0)[1])
            rootfs = Rootfs(place)
            rootfs.lay(self._snapshots, wanted.chain_id, wanted.mappings)
            reach("bundle.laid")
            rootfs.mount(self._snapshots, wanted.chain_id, wanted.mappings, read_only=False)
            reach("bundle.mounted")
            config = describe(rootfs)
            if wanted.read_only:
                rootfs.close(config["mounts"], config["process"]["cwd"], wanted.mappings)
            replace_file(place / CONFIG, msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
            reach("bundle.written")

    def remount(self, directory: Path) -> bool:
        """Mount a bundle again, after a reboot say; False where it is mounted.

        Raises:
            BundleRefused: there is none, or it is not finished.
            SnapshotMissing: a layer is not there, or the whole store; `bundle_at` tells what to pull.
            MountFailed, Permanent: the kernel or the disk refuses.
        """
        with held_directory(directory), disk_errors(directory):
            bundle = bundle_at(directory)
            if not (directory / CONFIG).exists():
                raise BundleRefused(f"{directory} is not finished; make it again with `pullonce bundle`, or `unbundle` it")
            if not self._content.layout.store.exists():
                raise SnapshotMissing(
                    f"{self._content.root} is no store any more, so {directory} has no layers; pull its image again"
                )
            self._settle(bundle, directory)
            rootfs = Rootfs(directory)
            if rootfs.is_mounted:
                return False
            rootfs.mount(self._snapshots, bundle.chain_id, bundle.mappings, read_only=bundle.read_only)
            return True

    def take_apart(self, directory: Path, *, force: bool) -> None:
        """Unmount a bundle, remove what was written in it, and let its layers go. It may be done again after a crash.

        Raises:
            BundleRefused: there is no bundle, or it is in use.
            MountFailed, Permanent: the kernel or the disk refuses.
        """
        if not directory.is_dir():
            if not self._holds.drop_at(directory):
                raise no_bundle(directory)
            return
        with held_directory(directory), disk_errors(directory):
            bundle = read(directory)
            if bundle is None:
                self._let_go(directory, force=force)
            else:
                _clear(bundle, directory, force=force)
                self._finish(bundle, directory)

    def _let_go(self, directory: Path, *, force: bool) -> None:
        """Take apart what says no more what it is. What lies there is touched where it looks as ours does."""
        held = self._holds.at(directory)
        if not held:
            raise no_bundle(directory)
        if Rootfs(directory).is_mounted or not _names(directory) - set(_OURS):
            _clear(held[0], directory, force=force)
            self._finish(held[0], directory)
        self._holds.drop_at(directory)

    def _settle(self, bundle: Bundle, directory: Path) -> None:
        """Keep the layers of a bundle where it lies now. Raises SnapshotMissing, where one is not there.

        One that was moved keeps its hold. One that was copied is a bundle of its own: it gets an id and a hold, and the
        original keeps what it has.
        """
        moved = bundle.directory != str(directory)
        is_copy = self._holds.is_held(bundle) and not self._holds.is_own(bundle, directory)
        number = secrets.token_hex(8) if is_copy or (moved and not bundle.id) else bundle.id
        here = msgspec.structs.replace(bundle, directory=str(directory), id=number)
        if here != bundle:
            replace_file(directory / STATE, encode(here))
        self._hold(here)
        if here.id != bundle.id:
            self._holds.drop_own(bundle, directory)

    def _hold(self, bundle: Bundle) -> None:
        """Have the layers stay. Raises SnapshotMissing, where one is not there."""
        self._holds.put(bundle)
        # Behind the hold, and under the lock: a collector that looked before it has removed a layer by now, or not at all.
        with self._content.images.hold():
            for _ in self._snapshots.chain(bundle.chain_id):
                pass

    def _unfinished(self, place: Path) -> Bundle | None:
        """What an earlier attempt left in a directory; None where it is empty.

        Raises:
            BundleRefused: something else is in it, or a whole bundle.
        """
        names = _names(place)
        known = read(place)
        if known is not None and CONFIG in names:
            raise BundleRefused(
                f"{place} is a bundle of {known.reference} already; `pullonce bundle --remount` mounts it again, "
                "`pullonce unbundle` removes it"
            )
        if names - set(_OURS) or (names and known is None):
            raise BundleRefused(f"{place} is not empty; expected a directory that is not there yet, or an empty one")
        return known

    def _undo(self, known: Bundle | None, wanted: Bundle, place: Path) -> None:
        _clear(wanted, place, force=True)
        if known is not None and known.store != wanted.store:
            BundleHolds(Path(known.store)).drop_own(known, place)
        self._finish(wanted, place)

    def _finish(self, bundle: Bundle, place: Path) -> None:
        """The last steps: the layers may go, and then nothing is left."""
        BundleHolds(Path(bundle.store)).drop_own(bundle, place)
        reach("unbundle.unheld")
        Rootfs(place).remove()
        for path in list(place.iterdir()):
            if path.name.startswith(_DRAFTS):
                path.unlink()
        reach("unbundle.emptied")
        if bundle.before is not None:
            give_back(place, bundle.before)
        (place / STATE).unlink(missing_ok=True)
        if bundle.made and not any(place.iterdir()):
            place.rmdir()


def _names(place: Path) -> set[str]:
    """What lies in a bundle's directory, but for drafts that a crash left."""
    return {path.name for path in place.iterdir() if not path.name.startswith(_DRAFTS)}


def _clear(bundle: Bundle, place: Path, *, force: bool) -> None:
    """Unmount it, and have nobody start it any more."""
    rootfs = Rootfs(place)
    if rootfs.is_mounted:
        rootfs.unmount(force=force)
    reach("unbundle.unmounted")
    (place / CONFIG).unlink(missing_ok=True)
    reach("unbundle.unwritten")

"""`gc`: take images off the list that nobody used for long, and remove what no image and no pull in flight needs."""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from pullonce.bus.ports import Bus
from pullonce.care import flights as in_flight
from pullonce.care.choice import Listed, Retention, to_go
from pullonce.care.flights import ActiveFlights
from pullonce.care.held import HeldThings, counted
from pullonce.care.listing import ImageList, uses_of
from pullonce.care.mounted import mounted, mounted_names
from pullonce.care.needs import Needs
from pullonce.care.removal import Claimed, Remover, Trash
from pullonce.care.things import Thing, Things, blob
from pullonce.store import placing
from pullonce.store.content import ContentStore
from pullonce.store.disk import disk_errors
from pullonce.store.images import ImageRecord
from pullonce.store.trees import is_abandoned
from pullonce.store.uses import Use
from schemas.oci import ChainID
from schemas.subjects import digest_of

_BATCH = 64
"""Things that are claimed and removed together: what the lock of the store is held for takes some milliseconds."""


class Collected(Struct, kw_only=True):
    """What a collection removed, or would remove. Bytes of blobs as stored, of layers as their files were counted."""

    images: list[str] = []
    """References that were taken off the list, each with its platform."""
    blobs: int = 0
    blob_bytes: int = 0
    layers: int = 0
    layer_bytes: int = 0
    partial: int = 0
    """Growing files that nobody went on with."""
    partial_bytes: int = 0
    staging: int = 0
    """Directories of processes that died."""
    mounted: list[str] = []
    """Snapshots that nobody needs, and that stay since they are mounted, with all below them."""
    held: dict[str, int] = {}
    """Holder → layers and blobs that no image or pull needs, and that stay since they were promised to it."""
    busy: int = 0
    """Things that stay for now, since an order for them is out or a pull began to need them."""
    held_bytes: int = 0
    """Bytes of what remains needed."""


class Collector:
    """Collects one store.

    Args:
        store: its name.
        older: seconds after which growing files and abandoned directories go.
    """

    def __init__(self, bus: Bus, content: ContentStore, store: str, *, older: float) -> None:
        self._bus = bus
        self._content = content
        self._store = store
        self._older = older
        self._things = Things(content)
        self._needs = Needs(content)
        self._held = HeldThings(content)
        self._list = ImageList(content)
        self._remover = Remover(bus, store)

    async def run(self, limits: Retention, *, dry: bool) -> Collected:
        """Collect, or with `dry` only say what would be collected.

        Raises:
            ServicesMissing: nobody knows what is being pulled.
            NeedsUnknown: a manifest is damaged.
            Permanent: the disk refuses.
        """
        active = await in_flight.ask(self._bus.signals, self._store)
        report = Collected()
        began = time.time()
        gone = await asyncio.to_thread(self._choose, limits, active)
        if not dry:
            gone = await asyncio.to_thread(self._list.drop, gone, active, began)
            await asyncio.to_thread(self._list.forget_uses, active)
        report.images = [f"{each.reference} ({each.platform})" for each in gone]
        doomed = await asyncio.to_thread(self._survey, active, gone, report)
        if dry:
            self._count(doomed, report)
            await asyncio.to_thread(self._age_out, active, None, report)
            return report
        for start in range(0, len(doomed), _BATCH):
            await self._remove(doomed[start : start + _BATCH], active, report)
        with Trash(self._content.root) as trash:
            await asyncio.to_thread(self._age_out, active, trash, report)
        return report

    # -- looking -------------------------------------------------------------------------------------------------------

    def _choose(self, limits: Retention, active: ActiveFlights) -> list[ImageRecord]:
        """The images that are to go."""
        if limits == Retention():
            return []
        uses, pinned, exposed = list(self._list.uses.all()), set(self._list.pins.all()), self._list.exposed()
        images = [
            self._listed(
                image, uses_of(image, uses), active, image.reference in pinned or (image.reference, image.platform) in exposed
            )
            for image in self._list.images.all()
        ]
        always = self._needs.of_all([], [use.image for use in uses if active.has(use)], self._list.images.foreign())
        always |= self._held.things().keys()
        everything = always.union(*(each.needs for each in images))
        sizes = {thing: self._things.size(thing) for thing in everything}
        return [each.image for each in to_go(images, always, sizes, limits)]

    def _listed(self, image: ImageRecord, uses: list[Use], active: ActiveFlights, wanted: bool) -> Listed[ImageRecord, Thing]:
        last = max((use.at for use in uses), default=0.0)
        if not last:  # nobody noted one: it was brought by an earlier pullonce
            last = self._things.path(blob(image.manifest.digest)).stat().st_mtime
        kept = wanted or any(map(active.has, uses))
        return Listed(image, last, kept, frozenset(self._needs.of(image)))

    def _survey(self, active: ActiveFlights, gone: list[ImageRecord], report: Collected) -> list[Thing]:
        """What is there and not needed."""
        there = set(self._things.all())
        wanted, held = self._wanted(active, gone), self._held.things()
        needed = wanted | held.keys()
        report.held = counted(held, there - wanted)
        report.held_bytes = sum(self._things.size(thing) for thing in needed)
        doomed = there - needed
        layers = [ChainID(thing.name) for thing in doomed if thing.kind == "layer"]
        report.mounted = sorted(mounted(layers))
        return sorted(thing for thing in doomed if thing.name not in report.mounted)

    def _needed(self, active: ActiveFlights) -> set[Thing]:
        """What images and pulls need at this moment, and what others were promised."""
        return self._wanted(active) | self._held.things().keys()

    def _wanted(self, active: ActiveFlights, gone: Iterable[ImageRecord] = ()) -> set[Thing]:
        """What images and pulls need at this moment."""
        taken = list(gone)
        listed = [image for image in self._list.images.all() if image not in taken]
        used = [use.image for use in self._list.uses.all() if active.has(use)]
        return self._needs.of_all(listed, used, self._list.images.foreign())

    def _count(self, things: Iterable[Thing], report: Collected) -> None:
        for thing in things:
            size = self._things.size(thing)
            if thing.kind == "blob":
                report.blobs, report.blob_bytes = report.blobs + 1, report.blob_bytes + size
            else:
                report.layers, report.layer_bytes = report.layers + 1, report.layer_bytes + size

    # -- removing ------------------------------------------------------------------------------------------------------

    async def _remove(self, doomed: list[Thing], active: ActiveFlights, report: Collected) -> None:
        with Trash(self._content.root) as trash:
            async with self._remover.claimed(doomed) as hold:
                await self._remover.say_lost(hold.things, "collected: nothing listed or being pulled needs it")
                removed = await asyncio.to_thread(self._move, hold, active, trash, report)
            report.busy += len(doomed) - removed
            await asyncio.to_thread(trash.empty)

    def _move(self, hold: Claimed, active: ActiveFlights, trash: Trash, report: Collected) -> int:
        """Look once more who needs what, and take the rest out of sight; returns how many went."""
        with self._content.images.hold(), disk_errors(self._content.root):
            needed = self._needed(active)
            layers = [ChainID(thing.name) for thing in hold.things if thing.kind == "layer"]
            in_use = mounted(layers)
            free = [thing for thing in hold.things if thing not in needed and thing.name not in in_use]
            if not hold.good:
                return 0
            self._count(free, report)
            for thing in free:
                self._things.move(thing, trash.place())
            return len(free)

    # -- what died on its way --------------------------------------------------------------------------------------------

    def _age_out(self, active: ActiveFlights, trash: Trash | None, report: Collected) -> None:
        """Remove growing files and directories of the dead that are old enough; only count them where there is no trash."""
        before = time.time() - self._older
        needed = self._needed(active)
        for path in _older_than(self._content.layout.ingest, before):
            if blob(digest_of(path.name)) not in needed and (size := _drop_growing(path, drop=trash is not None)) is not None:
                report.partial, report.partial_bytes = report.partial + 1, report.partial_bytes + size
        for path in _older_than(self._content.layout.staging, before):
            if path.is_dir() and is_abandoned(path):
                report.staging += 1
                if trash is not None:
                    path.rename(trash.place())
        self._drop_strays(trash, report)

    def _drop_strays(self, trash: Trash | None, report: Collected) -> None:
        """Remove trees that a process which died left without a snapshot."""
        layout = self._content.layout
        strays = placing.strays(layout) if layout.trees.is_dir() else []
        for name in sorted(set(strays) - mounted_names(strays)):
            if trash is None or placing.take_out_stray(layout, name, trash.place()):
                report.staging += 1


def _older_than(directory: Path, before: float) -> list[Path]:
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        try:
            if path.stat().st_mtime < before:
                found.append(path)
        except FileNotFoundError:
            continue
    return found


def _drop_growing(path: Path, *, drop: bool) -> int | None:
    """Remove a growing file that nobody writes; returns the bytes it held, None where somebody does or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        # Under its lock: whoever waits for it looks whether the name is still there.
        if drop and os.path.samestat(status, path.stat()):
            path.unlink()
        return status.st_blocks * 512
    except (BlockingIOError, FileNotFoundError):
        return None
    finally:
        os.close(fd)

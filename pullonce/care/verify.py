"""`verify`: find what a store holds damaged or lacks, take it out, and tell everybody.

A damaged blob or snapshot is moved into `quarantine/`, never removed. Images that need it are taken off the list in the same
step; pins stay. Whoever wants such an image next has it fetched or unpacked again.
"""

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from graphlib import CycleError, TopologicalSorter

import msgspec
from msgspec import Struct

from pullonce.bus.ports import Bus
from pullonce.care.hashing import Pace, damage
from pullonce.care.held import HeldThings
from pullonce.care.mounted import mounted
from pullonce.care.needs import Needs, NeedsUnknown
from pullonce.care.owed import Owed
from pullonce.care.removal import Remover
from pullonce.care.snapshot_check import Checker
from pullonce.care.things import Thing, Things, blob, layer
from pullonce.store.content import ContentStore
from pullonce.store.disk import disk_errors
from pullonce.store.images import ImageRecord
from pullonce.store.snapshots import SnapshotMissing
from schemas.oci import ChainID

MISSING = "it is not there"


class Damage(Struct, kw_only=True):
    """A thing that is not what it should be."""

    kind: str
    name: str
    why: str
    moved_to: str = ""
    """Where it lies now; empty where it is missing, or was left."""
    left: str = ""
    """Why nothing was done about it."""
    held: str = ""
    """To whom it was promised: containerd has it brought again when it looks at it next."""


class Verified(Struct, kw_only=True):
    """What a verification found."""

    blobs: int = 0
    blob_bytes: int = 0
    layers: int = 0
    compared: int = 0
    """Layers that were unpacked again and compared."""
    unchecked: dict[str, str] = {}
    """ChainID → why the snapshot could not be compared."""
    damaged: list[Damage] = []
    images: list[str] = []
    """References that were taken off the list, each with its platform."""
    repaired: list[str] = []


class StoreVerifier:
    """Verifies one store.

    Args:
        store: its name.
        rate: bytes of blobs to read a second; 0: no limit.
        threads: blobs that are read at a time.
        compare: whether snapshots are unpacked again and compared.
    """

    def __init__(
        self, bus: Bus, content: ContentStore, store: str, *, rate: float = 0.0, threads: int = 1, compare: bool = True
    ) -> None:
        self._content = content
        self._things = Things(content)
        self._remover = Remover(bus, store)
        self._pace = Pace(rate)
        self._threads = threads
        self._compare = compare
        self._owed = Owed(content.root)
        self._held = HeldThings(content)
        self._images: list[ImageRecord] = []

    async def run(self) -> tuple[Verified, list[ImageRecord]]:
        """Verify everything; returns the report, and the images that this or an earlier verification took off the list.

        Raises:
            Permanent: the disk refuses.
        """
        report = Verified()
        await self._withdraw(await self._bad_blobs(report), report)
        await self._withdraw(await asyncio.to_thread(self._bad_shapes, report), report)
        if self._compare:
            await self._withdraw(await self._bad_trees(report), report)
        await self._withdraw(await asyncio.to_thread(self._missing), report)
        report.images = [title(each) for each in self._images]
        return report, await asyncio.to_thread(self._all_owed)

    def _all_owed(self) -> list[ImageRecord]:
        with self._content.images.hold():
            return self._owed.all(self._content.images.all())

    # -- finding -------------------------------------------------------------------------------------------------------

    async def _bad_blobs(self, report: Verified) -> dict[Thing, str]:
        blobs = [thing for thing in await asyncio.to_thread(lambda: list(self._things.all())) if thing.kind == "blob"]
        loop, found = asyncio.get_running_loop(), {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="verify") as threads:
            reading = [loop.run_in_executor(threads, self._read, thing, report) for thing in blobs]
            try:
                for thing, why in zip(blobs, await asyncio.gather(*reading), strict=True):
                    if why:
                        found[thing] = why
            except asyncio.CancelledError:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _read(self, thing: Thing, report: Verified) -> str:
        size = self._things.size(thing)
        try:
            why = damage(self._things.path(thing), thing.name, self._pace)
        except FileNotFoundError:
            return ""  # collected meanwhile
        report.blobs, report.blob_bytes = report.blobs + 1, report.blob_bytes + size
        return why

    def _bad_shapes(self, report: Verified) -> dict[Thing, str]:
        """Snapshots that are damaged at first sight."""
        found = {}
        for thing in self._things.all():
            if thing.kind == "layer" and self._things.path(thing).is_dir():
                report.layers += 1
                if why := self._shape(ChainID(thing.name)):
                    found[thing] = why
        return found

    def _shape(self, chain_id: ChainID) -> str:
        snapshots = self._things.snapshots
        if snapshots.in_doubt(chain_id):
            return ""  # it does not count, and its unpacker removes it
        try:
            snapshot = snapshots.get(chain_id)
        except SnapshotMissing:
            return "it says nothing of itself"
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return "what it says of itself cannot be read"
        if snapshot.chain_id != chain_id:
            return f"it says that it is {snapshot.chain_id}"
        if not snapshots.path(chain_id).is_dir():
            return "its tree is gone"
        return ""

    async def _bad_trees(self, report: Verified) -> dict[Thing, str]:
        """Snapshots that are not what their layers unpack to."""
        found: dict[Thing, str] = {}
        async with Checker(self._content.root) as checker:
            for chain_id, parent in await asyncio.to_thread(self._bottom_up):
                # What a layer leaves unsaid comes from those below it.
                doubtful = parent and (layer(parent) in found or parent in report.unchecked)
                checked = None if doubtful else await checker.check(chain_id)
                if checked is None or checked.unchecked:
                    report.unchecked[chain_id] = checked.unchecked if checked else f"the snapshot {parent} below it is in doubt"
                    continue
                report.compared += 1
                if checked.differences:
                    found[layer(chain_id)] = "; ".join(checked.differences)
        return found

    def _bottom_up(self) -> list[tuple[ChainID, ChainID]]:
        """Every snapshot with the one below it, lower ones first."""
        snapshots, parents = self._things.snapshots, dict[ChainID, ChainID]()
        for thing in self._things.all():
            if thing.kind == "layer" and snapshots.has(chain_id := ChainID(thing.name)):
                parents[chain_id] = snapshots.get(chain_id).parent
        try:
            order = list(TopologicalSorter({each: [parent] for each, parent in parents.items()}).static_order())
        except CycleError:  # some snapshot lies about what is below it; comparing tells
            order = list(parents)
        return [(each, parents[each]) for each in order if each in parents]

    def _missing(self) -> dict[Thing, str]:
        """What listed images need and the disk has not."""
        needs = Needs(self._content)
        found: dict[Thing, str] = {}
        for image in self._content.images.all():
            try:
                needed = needs.of(image)
            except NeedsUnknown:
                needed = {blob(image.manifest.digest)}
            found |= {thing: MISSING for thing in needed if not self._is_there(thing)}
        return found

    def _is_there(self, thing: Thing) -> bool:
        return self._things.path(thing).is_file() if thing.kind == "blob" else self._things.snapshots.has(ChainID(thing.name))

    # -- taking out ----------------------------------------------------------------------------------------------------

    async def _withdraw(self, found: dict[Thing, str], report: Verified) -> None:
        """Take damaged things out, those aside that somebody is at."""
        for thing, why in found.items():
            entry = Damage(kind=thing.kind, name=thing.name, why=why, held=self._held.holders(thing))
            report.damaged.append(entry)
            if thing.kind == "layer" and mounted([ChainID(thing.name)]):
                entry.left = "it is mounted; unmount it and verify again"
                continue
            async with self._remover.claimed([thing]) as hold:
                if thing not in hold.things:
                    entry.left = "an order for it is out; verify again when that is done"
                    continue
                await asyncio.to_thread(self._quarantine, thing, entry)
                # Behind the removal: it is damaged, so nothing may go on believing in it for the time in between.
                await self._remover.say_lost([thing], f"found damaged: {why}" if why != MISSING else "found missing")

    def _quarantine(self, thing: Thing, entry: Damage) -> None:
        place = self._content.layout.quarantine
        target = place / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{thing.kind}-{secrets.token_hex(4)}"
        with self._content.images.hold(), disk_errors(place):
            self._take_off(thing)
            place.mkdir(mode=0o700, exist_ok=True)
            if self._things.move(thing, target):
                entry.moved_to = str(target)

    def _take_off(self, thing: Thing) -> None:
        """Take the images that need a thing off the list."""
        needs = Needs(self._content)
        listed = self._content.images.all()
        gone = [image for image in listed if _needs(needs, image, thing)]
        if gone:
            self._owed.add(gone)
        self._content.images.remove(gone)
        self._images += gone


def title(image: ImageRecord) -> str:
    """An image for people."""
    return f"{image.reference} ({image.platform})"


def _needs(needs: Needs, image: ImageRecord, thing: Thing) -> bool:
    try:
        return thing in needs.of(image)
    except NeedsUnknown:
        return True

"""The images of a store: `index.json` of its OCI layout, read and written (`entries`), and found by name (`references`)."""

import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from pullonce.oci import platform as platforms
from pullonce.store import entries
from pullonce.store.disk import disk_errors, locked, replace_file, sync_directory
from pullonce.store.entries import EMPTY_INDEX, REF_NAME, Damaged, Entry, ImageRecord
from pullonce.store.layout import Layout
from pullonce.store.references import References
from schemas.oci import Descriptor

__all__ = ("EMPTY_INDEX", "REF_NAME", "ImageRecord", "Images")


class Images:
    """The list of images in one store. Safe for several processes: writers hold a lock, readers see whole files."""

    def __init__(self, root: Path, *, sync: bool = True) -> None:
        self._path = Layout(root).index
        # The lock lies on a file that is never replaced: index.json itself changes its inode at every write.
        self._lock = Layout(root).store
        self._sync = sync
        self._references = References(root)

    def all(self) -> list[ImageRecord]:
        """Every image that pullonce listed, oldest first. Empty where there is no store."""
        return [record for entry in self._entries() if (record := entries.record_of(entry))]

    def named(self, reference: str) -> list[ImageRecord]:
        """The images listed under a normalised reference, one for each platform. Costs the same however many there are."""
        lines = self._lines(reference)
        return [record for line in lines if (record := entries.record_of(msgspec.json.decode(line)))]

    def find(self, reference: str, wanted: str) -> ImageRecord | None:
        """The listed image that serves a wish for a platform best; None where none does. Both are normalised."""
        order = platforms.preferences(wanted)
        fitting = [record for record in self.named(reference) if platforms.serves(record.platform, wanted)]
        return min(fitting, key=lambda record: order.index(record.platform), default=None)

    def foreign(self) -> list[Descriptor]:
        """What the entries that others wrote name."""
        found = (entries.descriptor_of(entry) for entry in self._entries() if entries.record_of(entry) is None)
        return [each for each in found if each is not None]

    def hold(self) -> AbstractContextManager[None]:
        """The lock of the store: what is listed, used and there stays as it is seen, for as long as the block lasts."""
        return locked(self._lock)

    def mend(self) -> None:
        """Have the list and the index of it agree: after another tool wrote the list, or where it is gone or damaged, when it
        is made anew and the damaged one kept beside it. Costs next to nothing where they do. Call it while holding the lock.

        Raises:
            Permanent: there is no list, and the disk refuses one.
        """
        if self._references.counts():
            return
        with disk_errors(self._path):
            try:
                _, found = entries.parsed(self._path.read_bytes())
            except (FileNotFoundError, Damaged) as exc:
                if isinstance(exc, Damaged):
                    self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
                found = [msgspec.json.decode(line) for line in self._references.all()]
                replace_file(self._path, b"".join(entries.rendered({}, map(entries.line, found))), sync=self._sync)
        try:
            self._index(found)
        except OSError:
            pass  # a disk that is full or read-only: then the list itself is read

    def remove(self, gone: Collection[ImageRecord]) -> None:
        """Take images off the list; what they need stays on the disk. Call it while holding the lock.

        Raises:
            Permanent: the disk refuses.
        """
        self.mend()
        with disk_errors(self._path):
            there = {each.reference: self._lines(each.reference) for each in gone}
            named = {(each.reference, each.platform) for each in gone}
            out = [line for lines in there.values() for line in lines if _names(line) in named]
            if out:
                self._write(out, [], {name: [each for each in lines if each not in out] for name, lines in there.items()})

    def record(self, record: ImageRecord, check: Callable[[], None] = lambda: None) -> None:
        """List an image, in place of what was listed under the same reference and platform. Repetition changes nothing.

        A record without snapshots keeps those that are listed for the same manifest: a pull that unpacked nothing takes
        nothing away.

        Args:
            check: called under the lock; raises where something that the image needs is not there.

        Raises:
            Permanent: the disk refuses.
        """
        with disk_errors(self._path), self.hold():
            check()
            self.mend()
            there = self._lines(record.reference)
            replaced = [line for line in there if _names(line) == (record.reference, record.platform)]
            for known in filter(None, (entries.record_of(msgspec.json.decode(line)) for line in replaced)):
                if not record.chain_ids and known.manifest.digest == record.manifest.digest:
                    record = msgspec.structs.replace(record, chain_ids=known.chain_ids)
            line = entries.line(entries.entry_of(record, self._name(record, replaced)))
            if replaced != [line]:
                self._write(replaced, [line], {record.reference: [*(each for each in there if each not in replaced), line]})

    def _name(self, record: ImageRecord, replaced: list[bytes]) -> str:
        """A name that no other entry has; an image keeps the one it has."""
        for line in replaced:
            return entries.name_of(msgspec.json.decode(line))
        if entries.is_ours(text := self._path.read_bytes()):
            taken = entries.named_in(text, record.reference)
        else:
            taken = any(entries.name_of(entry) == record.reference for entry in entries.parsed(text)[1])
        return f"{record.reference}+{record.platform.replace('/', '-')}" if taken else record.reference

    def _lines(self, reference: str) -> list[bytes]:
        """What is listed under a reference: by the index, or where that does not count, by the list."""
        lines = self._references.lines(reference)
        if lines is not None:
            return lines
        listed = ((entry, entries.record_of(entry)) for entry in self._entries())
        return [entries.line(entry) for entry, record in listed if record is not None and record.reference == reference]

    def _entries(self) -> list[Entry]:
        """All entries, by the list, or where that cannot be read, by the index of it."""
        try:
            return entries.parsed(self._path.read_bytes())[1]
        except (FileNotFoundError, Damaged):
            return [msgspec.json.decode(line) for line in self._references.all()]

    def _index(self, found: list[Entry]) -> None:
        lines: dict[str, list[bytes]] = defaultdict(list)
        others: list[bytes] = []
        for entry in found:
            record = entries.record_of(entry)
            (others if record is None else lines[record.reference]).append(entries.line(entry))
        self._references.make_anew(lines, others)

    def _write(self, gone: list[bytes], new: list[bytes], lines: dict[str, list[bytes]]) -> None:
        """Exchange lines of the list; `lines`: what then is listed under the references that this concerns."""
        text = self._path.read_bytes()
        changed = entries.exchanged(text, gone, new)
        if changed is None:
            about, found = entries.parsed(text)
            kept = [line for line in map(entries.line, found) if line not in gone]
            changed = entries.rendered(about, [*kept, *new])
        indexed = self._references.counts()  # else it would be one of a part of the list
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        try:
            with draft.open("xb") as file:
                file.writelines(changed)
                file.flush()
                if self._sync:
                    os.fsync(file.fileno())
                if indexed:
                    self._references.change(lines, file.fileno())
            draft.replace(self._path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        if self._sync:
            sync_directory(self._path.parent)


def _names(line: bytes) -> tuple[str, str]:
    """Reference and platform of a line."""
    record = entries.record_of(msgspec.json.decode(line))
    return (record.reference, record.platform) if record else ("", "")

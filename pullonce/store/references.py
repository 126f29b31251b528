"""Our own index of a store's images: what is listed under one reference, at the same cost for ten images and ten thousand.

    images/<sha256 of the reference>   the lines of `index.json` of this reference, one for each platform
    images/others                      the lines that other tools wrote
    images/state                       which `index.json` this is an index of

`index.json` stays the truth, for us and for other tools. This index counts as long as that file is the one it was made of: the
same inode, size and time of change, in the same boot, since it is not synced. Whoever writes `index.json` writes here before;
where somebody else wrote it, it is made anew from it, and where it is gone or damaged, it is made anew from here.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from pullonce.store.disk import replace_file
from pullonce.store.layout import Layout
from pullonce.store.snapshots import boot_id

Version = tuple[int, int, int]
"""Of a file: inode, size, nanoseconds of its last change."""

_OTHERS = "others"
_STATE = "state"


class _State(msgspec.Struct, frozen=True):
    boot: str
    now: Version
    """The version of `index.json` that was written last."""
    before: Version | None = None
    """The one that was there until then, and may be there still: the index is one image ahead of it, which is on the disk."""


class References:
    """The index of one store. Write to it while holding the store's lock; read at any time.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._place = Layout(root).images
        self._list = Layout(root).index
        self._boot = boot_id()

    def lines(self, reference: str) -> list[bytes] | None:
        """What is listed under a reference; None where the index does not count, and nobody knows but the list."""
        state, version = self._state(), self._version()
        if state is None or version is None or version not in (state.now, state.before):
            return None
        return self._read(_name(reference))

    def counts(self) -> bool:
        """Whether this is the index of exactly the list that is there."""
        state = self._state()
        return state is not None and state.now == self._version()

    def all(self) -> list[bytes]:
        """Every line that it knows, others' first and then by age, whether it counts or not."""
        try:
            files = sorted(
                (entry for entry in os.scandir(self._place) if entry.name != _STATE and not entry.name.startswith(".")),
                key=lambda entry: (entry.name != _OTHERS, entry.stat().st_mtime_ns),
            )
        except FileNotFoundError:
            return []
        return [line for entry in files for line in self._read(entry.name) or ()]

    def make_anew(self, lines: Mapping[str, Sequence[bytes]], others: Sequence[bytes]) -> None:
        """Index the list that is there.

        Args:
            lines: reference → its lines.
            others: what others wrote.

        Raises:
            OSError: the disk refuses.
        """
        self._place.mkdir(exist_ok=True)
        (self._place / _STATE).unlink(missing_ok=True)
        wanted = {_name(reference): each for reference, each in lines.items()} | {_OTHERS: others}
        for entry in os.scandir(self._place):
            if entry.name not in wanted:
                Path(entry.path).unlink()
        for name, each in wanted.items():
            if self._read(name) != list(each):
                self._write(name, each)
        if (version := self._version()) is not None:
            self._note(_State(self._boot, version))

    def change(self, lines: Mapping[str, Sequence[bytes]], draft: int) -> None:
        """Index what will be listed as soon as a draft of the list is renamed into its place.

        Args:
            lines: reference → its lines from now on.
            draft: the open file.

        Raises:
            OSError: the disk refuses.
        """
        self._note(_State(self._boot, _version_of(os.fstat(draft)), self._version()))
        for reference, each in lines.items():
            if each:
                self._write(_name(reference), each)
            else:
                (self._place / _name(reference)).unlink(missing_ok=True)

    def _state(self) -> _State | None:
        try:
            found = msgspec.json.decode((self._place / _STATE).read_bytes(), type=_State)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return found if found.boot == self._boot else None

    def _note(self, state: _State) -> None:
        replace_file(self._place / _STATE, msgspec.json.encode(state), sync=False)

    def _version(self) -> Version | None:
        try:
            return _version_of(os.stat(self._list))  # noqa: PTH116 (asked for at every pull)
        except FileNotFoundError:
            return None

    def _read(self, name: str) -> list[bytes] | None:
        """The lines of a file, none where there is no file; None where it is damaged."""
        try:
            found = (self._place / name).read_bytes()
        except FileNotFoundError:
            return []
        *lines, end = found.split(b"\n")
        return lines if end == b"." else None

    def _write(self, name: str, lines: Iterable[bytes]) -> None:
        # The dot at the end says that the file is whole.
        replace_file(self._place / name, b"".join(each + b"\n" for each in lines) + b".", sync=False)


def _name(reference: str) -> str:
    return hashlib.sha256(reference.encode()).hexdigest()


def _version_of(found: os.stat_result) -> Version:
    return found.st_ino, found.st_size, found.st_mtime_ns

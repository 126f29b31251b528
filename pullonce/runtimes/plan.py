"""What is to be added to the configuration of a runtime, and what is to be done then. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pullonce.runtimes.files import Files
from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.trouble import CannotAdd, ConfigInvalid

SIGNATURE = "# Added by `pullonce gateway config`: pullonce serves this by its gateway.\n"


@dataclass(frozen=True, slots=True)
class Change:
    """One file, as it was and as it is to be.

    Attributes:
        before: None: there is none.
        shown: what is added, for people: as it would stand in a file of its own.
    """

    path: str
    before: str | None
    after: str
    shown: str


@dataclass(slots=True)
class Plan:
    """What has to be done for one runtime.

    Attributes:
        notes: what else its owner should know, in sentences.
        restart: commands after which it counts.
        conflicts: what stands already and says something else; where there are any nothing is written.
    """

    runtime: str
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    conflicts: list[CannotAdd] = field(default_factory=list)

    def take(self, edit: "TomlEdit") -> None:
        """Take over what an edit came to."""
        self.conflicts += edit.conflicts
        if edit.changed:
            self.changes.append(edit.change())


class TomlEdit:
    """Additions to one file of TOML. What is there already is not added; what is there otherwise becomes a conflict.

    Args:
        start: what a file has that is new; what its defaults are, where there is none.

    Raises:
        ConfigInvalid: the file is no TOML.
        FilesRefused: it cannot be read.
    """

    def __init__(self, files: Files, path: str, *, start: str = "") -> None:
        self.path = path
        self.before = files.read(path)
        self.conflicts: list[CannotAdd] = []
        try:
            self.document = TomlText(start if self.before is None else self.before)
        except ConfigInvalid as exc:
            raise exc.of(path) from None
        self._start = self.document
        self._sketch = TomlText("")

    @property
    def changed(self) -> bool:
        return self.document is not self._start

    def keys(self, table: tuple[str, ...], keys: Mapping[str, Any], *, above: bool = False) -> None:
        """Keys of a table."""
        there = self.document.get(*table)
        missing = {key: value for key, value in keys.items() if not isinstance(there, dict) or key not in there}
        try:
            self.document = self.document.with_keys(table, keys, above=above)
        except CannotAdd as exc:
            self.conflicts.append(exc.of(self.path))
            return
        if missing:
            self._sketch = self._sketch.with_keys(table, missing)

    def element(self, array: tuple[str, ...], element: Mapping[str, Any]) -> None:
        """One more table of an array of tables."""
        try:
            made = self.document.with_element(array, element)
        except CannotAdd as exc:
            self.conflicts.append(exc.of(self.path))
            return
        if made is not self.document:
            self._sketch = self._sketch.with_element(array, element)
        self.document = made

    def item(self, table: tuple[str, ...], key: str, item: str) -> None:
        """One more string of an array."""
        try:
            made = self.document.with_item(table, key, item)
        except CannotAdd as exc:
            self.conflicts.append(exc.of(self.path))
            return
        if made is not self.document:
            self._sketch = self._sketch.with_item(table, key, item)
        self.document = made

    def change(self) -> Change:
        """What it came to."""
        head = SIGNATURE if self.before is None else ""
        shown = self._sketch.text if self.before is not None else self.document.text
        return Change(self.path, self.before, head + self.document.text, shown.strip("\n") + "\n")

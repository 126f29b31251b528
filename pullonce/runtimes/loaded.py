"""The configuration of containerd as it counts: its file, and what that imports. Pure.

containerd 2 merges them deeply, the later before the earlier; in containerd 1 a section of a plugin takes the place of the
whole section. From a file of version 2, containerd 2 takes neither the CRI's snapshotter nor `disable_snapshot_annotations`
(tried with 1.6 and 2.4). Source: containerd-config.toml(5).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from posixpath import dirname, join, normpath
from typing import Any

from pullonce.runtimes.containerd_names import DROP_IN, Names, version_of
from pullonce.runtimes.files import Files
from pullonce.runtimes.toml_text import TomlText
from pullonce.runtimes.trouble import ConfigInvalid

_DROPPED = ("snapshotter", "disable_snapshot_annotations")


@dataclass(frozen=True, slots=True)
class Part:
    """One file."""

    path: str
    document: TomlText
    version: int

    @property
    def names(self) -> Names:
        return Names.of(self.version)


@dataclass(frozen=True, slots=True)
class Set:
    """A value, and where it is set."""

    value: Any
    path: str
    line: int


NOWHERE = Set(None, "", 0)


class Loaded:
    """All files together.

    Args:
        parts: in the order in which they are read.
        major: of the containerd that reads them.
    """

    def __init__(self, parts: list[Part], major: int) -> None:
        self.parts = parts
        self.major = major

    def find(self, *path: str | int) -> Set:
        """What stands at a place whose name is the same in all versions."""
        return self._last((part, path) for part in self.parts)

    def images(self, key: str) -> Set:
        """What the CRI is told of images: its snapshotter, how it pulls."""
        parts = [part for part in self.cri_parts() if not self.drops(part, key)]
        in_old = ("snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers")

        def where(part: Part) -> tuple[str, ...]:
            return (*(part.names.images if part.version >= 3 or key in in_old else part.names.cri), key)

        return self._last((part, where(part)) for part in parts)

    def registry(self, key: str) -> Set:
        """What the CRI is told of registries."""
        return self._last((part, (*part.names.registry, key)) for part in self.cri_parts())

    def dropped(self, key: str) -> Set:
        """What a file says in vain, since this containerd does not take it over from a file of that version."""
        return self._last((part, (*part.names.images, key)) for part in self.parts if self.drops(part, key))

    def drops(self, part: Part, key: str) -> bool:
        return self.major >= 2 and part.version < 3 and key in _DROPPED

    def replaced(self) -> Iterator[tuple[Part, Part]]:
        """Files whose section on the CRI another one replaces, and that other one."""
        if self.major >= 2:
            return
        having = [part for part in self.parts if part.document.get(*part.names.cri) is not None]
        yield from ((part, having[-1]) for part in having[:-1])

    def void(self) -> list[Part]:
        """Files whose section on the CRI does not count."""
        return [part for part, _ in self.replaced()]

    def cri_parts(self) -> list[Part]:
        """Files whose section on the CRI counts."""
        if self.major >= 2:
            return self.parts
        return [part for part in self.parts if part.document.get(*part.names.cri) is not None][-1:]

    @staticmethod
    def _last(places: "Iterator[tuple[Part, tuple[str | int, ...]]]") -> Set:
        found = NOWHERE
        for part, path in places:
            value = part.document.get(*path)
            if value is not None:
                found = Set(value, part.path, part.document.line(*path))
        return found


def load(files: Files, path: str, major: int) -> Loaded | None:
    """Read it; None where there is no file.

    Args:
        major: 0: as the file's version says.

    Raises:
        ConfigInvalid, FilesRefused: a file cannot be read.
    """
    parts: list[Part] = []
    todo = [path]
    while todo:
        here = todo.pop(0)
        if any(part.path == here for part in parts):
            continue
        text = files.read(here)
        if text is None:
            continue
        try:
            document = TomlText(text)
        except ConfigInvalid as exc:
            raise exc.of(here) from None
        parts.append(Part(here, document, version_of(document.values, there=True)))
        imports = document.get("imports")
        for pattern in imports if isinstance(imports, list) else ():
            todo += _matching(files, join(dirname(here), str(pattern)))
    if not parts:
        return None
    major = major or (2 if parts[0].version >= 3 else 1)
    if major >= 2 and not any(part.path == DROP_IN for part in parts) and parts[0].version >= 4:
        # From version 4 on this directory is read without a word of it (tried with 2.4).
        for drop_in in _matching(files, join(dirname(DROP_IN), "*.toml")):
            more = load(files, drop_in, major)
            parts += more.parts if more else []
    return Loaded(parts, major)


def _matching(files: Files, pattern: str) -> list[str]:
    pattern = normpath(pattern)
    directory, _, name = pattern.rpartition("/")
    if not any(character in name for character in "*?["):
        return [pattern]
    return [f"{directory}/{each}" for each in files.names(directory) if fnmatchcase(each, name)]

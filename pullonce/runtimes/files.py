"""Files of configuration, as the rules see them. Pure."""

from collections.abc import Mapping
from typing import Protocol

from pullonce.errors import PullonceError


class FilesRefused(PullonceError):
    """The disk does not let a file be read or written; the message says which, and why."""


class Files(Protocol):
    """Files by their absolute path."""

    def read(self, path: str) -> str | None:
        """The text of a file; None where there is none.

        Raises:
            ConfigInvalid: it is no text.
            FilesRefused: it cannot be read.
        """

    def names(self, directory: str) -> list[str]:
        """What lies in a directory, sorted; nothing where there is none."""


class Planned:
    """`Files` as they will be.

    Args:
        texts: path → what is in it then.
    """

    def __init__(self, files: Files, texts: Mapping[str, str]) -> None:
        self._files = files
        self._texts = texts

    def read(self, path: str) -> str | None:
        """As `Files.read`."""
        return self._texts[path] if path in self._texts else self._files.read(path)

    def names(self, directory: str) -> list[str]:
        """As `Files.names`."""
        start = directory.rstrip("/") + "/"
        made = {path.removeprefix(start).partition("/")[0] for path in self._texts if path.startswith(start)}
        return sorted({*self._files.names(directory), *made})

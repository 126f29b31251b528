"""Files of configuration, as the rules see them. Pure."""

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

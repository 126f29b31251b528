"""What can be wrong with somebody else's configuration. Pure."""

from pullonce.errors import PullonceError


class ConfigInvalid(PullonceError):
    """A file cannot be read as what it should be, so neither can the runtime whose it is.

    Attributes:
        path: the file; empty where only a text was given.
        line: from 1; 0 where it is not known.
        reason: what is wrong there.
    """

    def __init__(self, reason: str, *, path: str = "", line: int = 0) -> None:
        super().__init__(f"{path or 'the text'}{f', line {line}' if line else ''}: {reason}")
        self.reason = reason
        self.path = path
        self.line = line

    def of(self, path: str) -> "ConfigInvalid":
        """The same, of a file."""
        return ConfigInvalid(self.reason, path=path, line=self.line)


class CannotAdd(PullonceError):
    """Something stands already where something else should be: only its owner can decide.

    Attributes:
        line: from 1; 0 where it is not known.
    """

    def __init__(self, reason: str, *, path: str = "", line: int = 0) -> None:
        super().__init__(f"{path or 'the text'}{f', line {line}' if line else ''}: {reason}")
        self.reason = reason
        self.path = path
        self.line = line

    def of(self, path: str) -> "CannotAdd":
        """The same, of a file."""
        return CannotAdd(self.reason, path=path, line=self.line)

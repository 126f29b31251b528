"""A terminal for a process: a real pseudo-terminal, and the screen that comes of what is written to it."""

from __future__ import annotations

import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from fcntl import ioctl

_PIECES = re.compile(r"\x1b\[(?P<count>\d*)(?P<command>[A-Z])|(?P<control>[\r\n])|(?P<text>[ -~]+)|(?P<other>.)", re.DOTALL)


class Screen:
    """What is to be seen after some bytes. Knows the few commands that we use; any other one is an error.

    Attributes:
        lines: the rows, trailing blanks away.
        row, column: where the cursor is.
        wrapped: a line was longer than the screen is wide.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.row = self.column = 0
        self.wrapped = False
        self._rest = ""

    def write(self, text: str) -> None:
        whole = self._rest + text
        cut = re.search(r"\x1b(\[\d*)?$", whole)  # a command that is not complete yet
        self._rest = cut[0] if cut else ""
        for piece in _PIECES.finditer(whole[: len(whole) - len(self._rest)]):
            self._take(piece)

    def _take(self, piece: re.Match[str]) -> None:
        match piece["command"] or piece["control"]:
            case "A":
                self.row -= int(piece["count"] or 1)
                assert self.row >= 0, "the cursor left the screen"
            case "K":
                self.lines[self.row] = self.lines[self.row][: self.column].rstrip()
            case "J":
                self.lines[self.row] = self.lines[self.row][: self.column].rstrip()
                del self.lines[self.row + 1 :]
            case "\r":
                self.column = 0
            case "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            case None if piece["text"]:
                before = self.lines[self.row].ljust(self.column)
                self.column += len(piece["text"])
                self.lines[self.row] = (
                    before[: self.column - len(piece["text"])] + piece["text"] + before[self.column :]
                ).rstrip()
                self.wrapped = self.wrapped or self.column >= self.columns
            case _:
                raise AssertionError(f"what a terminal is not to be told: {piece[0]!r}")


class Terminal:
    """A process whose standard error is a terminal of so many columns and rows, and its standard output as well, if wanted."""

    def __init__(
        self, command: list[str], environ: dict[str, str], size: tuple[int, int] = (100, 24), *, stdout: bool = True
    ) -> None:
        ours, theirs = os.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self._descriptor = ours
        self.before = termios.tcgetattr(theirs)
        self.screen = Screen(size[0])
        self.process = subprocess.Popen(
            command,
            env=environ | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs if stdout else subprocess.DEVNULL,
            stderr=theirs,
            preexec_fn=_own_terminal,
        )
        self._theirs = theirs  # kept open: what is left unread when the process ends can still be read

    def until(self, holds: Callable[[list[str]], bool], seconds: float = 30.0) -> list[str]:
        """The lines on the screen as soon as they are as wanted."""
        end = time.monotonic() + seconds
        while not holds(self.screen.lines):
            self._read(end - time.monotonic())
            assert time.monotonic() < end, f"never came: {self.screen.lines}"
        return list(self.screen.lines)

    def press(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def end(self, seconds: float = 30.0) -> int:
        """Exit code, after everything it wrote is on the screen."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            self._read(0.05)
            assert time.monotonic() < end, f"does not end: {self.screen.lines}"
        while self._read(0.0):
            pass
        return self.process.returncode

    def unchanged(self) -> bool:
        """Whether the terminal's settings are as they were."""
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._descriptor)
        os.close(self._theirs)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._descriptor], [], [], max(seconds, 0.0))[0]:
            return False
        self.screen.write(os.read(self._descriptor, 65536).decode())
        return True


def _own_terminal() -> None:
    """In the child: its standard input is the terminal that Ctrl-C comes from."""
    os.setsid()
    ioctl(0, termios.TIOCSCTTY, 0)

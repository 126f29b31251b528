"""How far a piece of work is, in percent and bytes, on one line of a terminal."""

import sys

from pullonce.cli import units


class Percent:
    """Says it each time a percent has passed; nothing where standard error is no terminal.

    Args:
        done: what has become of the bytes, behind their number.
    """

    def __init__(self, done: str = "") -> None:
        self._shows = sys.stderr.isatty()
        self._done = f" {done}" if done else ""
        self._percent = -1

    def __call__(self, done: int, whole: int) -> None:
        percent = done * 100 // max(1, whole)
        if self._shows and percent != self._percent:
            self._percent = percent
            end = "\n" if done == whole else ""
            print(f"\r{percent:3} %  {units.amounts(done, whole)}{self._done}", end=end, file=sys.stderr, flush=True)

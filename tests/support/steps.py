"""Count the steps of code under test, so that a loop that gets no further fails instead of running for ever.

Lines of Python are counted, not seconds: the same bytes take the same number on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_OURS = tuple(f"{Path(__file__).parents[2] / name}/" for name in ("services", "pullonce", "schemas"))


class NoProgress(AssertionError):
    """More steps were taken than so few bytes can be worth."""


@contextmanager
def at_most(steps: int) -> Iterator[None]:
    """Let the block run so many lines of this project in this thread, and not one more."""
    left = steps

    def called(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(_OURS) else None

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            sys.settrace(None)
            raise NoProgress(f"{frame.f_code.co_qualname}, line {frame.f_lineno}: more than {steps} lines were run")
        return line

    before = sys.gettrace()
    sys.settrace(called)
    try:
        yield
    finally:
        sys.settrace(before)

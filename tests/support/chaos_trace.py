"""What a running process asks of the kernel, in order, as strace(1) sees it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

_LINE = re.compile(r"^(\d+)\s+(.*)$")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_UNFINISHED = " <unfinished ...>"


@dataclass(frozen=True)
class Call:
    """One system call: where in the trace it began and where it ended, and its text."""

    began: int
    ended: int
    text: str


@dataclass
class Trace:
    """All calls of all threads, in the order in which they ended."""

    calls: list[Call] = field(default_factory=list)

    def all(self, *parts: str) -> list[Call]:
        """The calls whose text holds all these parts; fails the test if there is none."""
        found = [call for call in self.calls if all(part in call.text for part in parts)]
        assert found, f"no call with {parts} among {len(self.calls)}"
        return found

    def one(self, *parts: str) -> Call:
        """The first of them."""
        return self.all(*parts)[0]

    def last(self, *parts: str) -> Call:
        """The last of them."""
        return self.all(*parts)[-1]

    def last_before(self, call: Call, *parts: str) -> Call:
        """The last of them that began before another call."""
        return [each for each in self.all(*parts) if each.began < call.began][-1]

    def first_after(self, call: Call, *parts: str) -> Call:
        """The first of them that began after another call had ended."""
        return next(each for each in self.all(*parts) if each.began > call.ended)


def in_order(*calls: Call) -> bool:
    """Each call had ended when the next one began."""
    return all(one.ended < other.began for one, other in pairwise(calls))


@contextmanager
def traced(pid: int, calls: str) -> Iterator[Trace]:
    """Trace a process and its threads for as long as the block lasts; the trace is filled when the block ends.

    Args:
        calls: names, with commas between them; `?` before those that not every machine has.
    """
    strace = shutil.which("strace")
    if strace is None:
        message = "strace is not on PATH (Debian: apt install strace)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    trace = Trace()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "trace")
        command = [strace, "-f", "-y", "-s", "1000000", "-e", f"trace={calls}", "-o", str(out), "-p", str(pid)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        if "attached" not in (said := process.stderr.readline()):
            process.wait()
            pytest.skip(f"this machine allows no tracing: {said.strip()}")
        try:
            yield trace
        finally:
            process.terminate()
            process.communicate()
        trace.calls = _read(out.read_text(errors="replace").splitlines())


def _read(lines: list[str]) -> list[Call]:
    calls: list[Call] = []
    open_calls: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:
            continue
        thread, text = match[1], match[2]
        if text.endswith(_UNFINISHED):
            open_calls[thread] = (number, text.removesuffix(_UNFINISHED))
        elif (resumed := _RESUMED.match(text)) and thread in open_calls:
            began, head = open_calls.pop(thread)
            calls.append(Call(began, number, head + resumed[2]))
        else:
            calls.append(Call(number, number, text))
    return calls

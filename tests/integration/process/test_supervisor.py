"""Child processes: kept running, stopped together, never left behind."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullonce.process.supervisor import LONGEST_LINE, Child, Lines, PartBroken, running

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]
STUBBORN = [sys.executable, "-c", "import signal, sys; signal.signal(15, lambda *_: print('no', file=sys.stderr, flush=True))\n"
            "print('up', file=sys.stderr, flush=True)\nwhile True: signal.pause()"]  # fmt: skip
LIMIT = 30

PARENT = """
import asyncio, os, sys
from pullonce.process.supervisor import Child, running

async def main():
    part = Child("child", [sys.executable, "-c", "import signal; signal.pause()"], environ=os.environ)
    async with running([part]):
        await part.changed.wait()
        print(part.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except FileNotFoundError:
        return True


async def next_process(part: Child) -> int:
    async with asyncio.timeout(LIMIT):
        await part.changed.wait()
    part.changed.clear()
    return part.pid


async def test_a_part_that_dies_is_started_again() -> None:
    part = Child("sleeper", SLEEPER, environ=os.environ)
    async with running([part]):
        first = await next_process(part)
        part.ready = True
        os.kill(first, signal.SIGKILL)
        second = await next_process(part)
        assert second not in (0, first)
    assert gone(first) and gone(second) and part.pid == 0


async def test_a_part_that_never_works_is_given_up() -> None:
    part = Child("broken", [sys.executable, "-c", "raise SystemExit(7)"], environ=os.environ)
    with pytest.raises(ExceptionGroup) as caught:
        async with running([part]):
            await asyncio.Event().wait()
    assert [str(each) for each in caught.value.exceptions] == [
        "the broken does not start: it ended 5 times, last with exit code 7"
    ]
    assert isinstance(caught.value.exceptions[0], PartBroken)


async def test_a_part_that_was_ready_is_never_given_up() -> None:
    part = Child("flaky", [sys.executable, "-c", "raise SystemExit(7)"], environ=os.environ)
    part.ready = True
    async with running([part]):
        for _ in range(7):
            await next_process(part)


async def test_what_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pullonce.process.supervisor.GRACE", 0.1)
    up = asyncio.Event()
    part = Child("stubborn", STUBBORN, environ=os.environ, line=lambda line: up.set())
    async with asyncio.timeout(LIMIT), running([part]):
        pid = await next_process(part)
        await up.wait()
    assert gone(pid)


async def test_a_line_of_any_length_ends_nobody() -> None:
    """asyncio's own reader of lines gives up above 64 KiB, and took all of `pullonce up` with it."""
    said: list[str] = []
    told = asyncio.Event()

    def take(line: str) -> None:
        said.append(line)
        if line == "after it":
            told.set()

    talk = "import sys, signal\nsys.stderr.write('x' * 1_000_000 + '\\nafter it\\n')\nsys.stderr.flush()\nsignal.pause()"
    part = Child("talker", [sys.executable, "-c", talk], environ=os.environ, line=take)
    async with asyncio.timeout(LIMIT), running([part]):
        await told.wait()
        assert part.pid, "it lives on"
    assert said == ["x" * LONGEST_LINE + f"… ({1_000_000 - LONGEST_LINE} more bytes)", "after it"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8), st.sampled_from([1, 7, 1000]))
def test_lines_are_the_same_however_they_arrive(data: bytes, cuts: list[int], longest: int) -> None:
    places = [0, *sorted(min(each, len(data)) for each in cuts), len(data)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pullonce.process.supervisor.LONGEST_LINE", longest)
        lines = Lines()
        found = [line for a, b in pairwise(places) for line in lines.feed(data[a:b])] + lines.last()
    whole = data.split(b"\n")
    for line, raw in zip(found, whole if whole[-1] else whole[:-1], strict=True):
        kept = raw[:longest].decode(errors="replace").rstrip()
        assert line == (kept if len(raw) <= longest else f"{kept}… ({len(raw) - longest} more bytes)")


async def test_all_parts_stop_when_the_block_fails() -> None:
    parts = [Child(f"sleeper {n}", SLEEPER, environ=os.environ) for n in range(3)]
    pids: list[int] = []
    with pytest.raises(ExceptionGroup):
        async with running(parts):
            pids += [await next_process(part) for part in parts]
            raise RuntimeError("the block failed")
    assert len(set(pids)) == 3 and all(map(gone, pids))


def test_no_part_outlives_a_killed_supervisor() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    watch = os.pidfd_open(child)
    parent.kill()
    parent.communicate()
    assert select.select([watch], [], [], LIMIT)[0]
    os.close(watch)

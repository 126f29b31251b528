"""What processes use: CPU seconds of a group with every child it ever had, and the most memory each process held.

All that is measured, the registry and whoever starts the clients too, also shares one control group that gets the processors
before anybody else on the machine does: other people's work costs it caches and memory bandwidth, not turns. Without it Linux
would divide the processors by terminal session (autogroup), which is nothing that anybody wants to measure.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")
_MB = 1 << 20


class Group:
    """Processes that are counted together, in a control group of their own. Needs root."""

    def __init__(self, name: str) -> None:
        self._v1 = _V1.is_dir()
        self._path = (_V1 if self._v1 else _V2) / f"bench-{os.getpid()}-{name}"
        self._path.mkdir(exist_ok=True)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Whatever is started in this block is of the group, as is what this process does meanwhile."""
        procs, me = self._path / "cgroup.procs", str(os.getpid())
        procs.write_text(me)
        try:
            yield
        finally:
            (self._path.parent / "cgroup.procs").write_text(me)

    def cpu(self) -> float:
        """Seconds so far, user and system."""
        if self._v1:
            return int((self._path / "cpuacct.usage").read_text()) / 1e9
        found = re.search(r"usage_usec (\d+)", (self._path / "cpu.stat").read_text())
        return int(found[1]) / 1e6 if found else 0.0

    def pids(self) -> list[int]:
        return [int(line) for line in (self._path / "cgroup.procs").read_text().split()]

    def forget_peaks(self) -> None:
        """Measure the peaks of memory from now on."""
        for pid in self.pids():
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            except OSError:
                continue

    def peaks(self) -> dict[str, float]:
        """MB that each process held at most, by what it runs; the largest of its kind."""
        found: dict[str, float] = {}
        for pid in self.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            peak = re.search(r"VmHWM:\s+(\d+) kB", status)
            if peak:
                name = _name([each.decode(errors="replace") for each in command])
                found[name] = max(found.get(name, 0.0), round(int(peak[1]) * 1024 / _MB, 1))
        return found

    def close(self) -> None:
        try:
            self._path.rmdir()
        except OSError:
            pass


def come_first() -> None:
    """Put this process, and with it all that it starts, before everything else on the machine, where that is possible."""
    group = Path("/sys/fs/cgroup/cpu/bench")
    try:
        group.mkdir(exist_ok=True)
        (group / "cpu.shares").write_text("16384")
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as exc:
        print(f"measuring beside whatever else runs here: {exc}", file=sys.stderr)


def _name(command: list[str]) -> str:
    if "-m" in command:
        return command[command.index("-m") + 1].removeprefix("services.")
    return Path(command[1] if "python" in command[0] and len(command) > 1 else command[0]).name or "?"


def machine_busy() -> float:
    """CPU seconds of the whole machine: what is not the measured programs' is somebody else's."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

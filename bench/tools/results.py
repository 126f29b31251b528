"""Rows of measurements: kept as JSON with date and versions, shown as tables of medians and ratios."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.tools import containerd
from pullonce.process.runtime import version

Row = dict[str, Any]


def _tools() -> dict[str, str | None]:
    """The programs that figures may come from, or depend on, where they are here."""
    named = {name: shutil.which(name) for name in ("nats-server", "dockerd", "podman", "igzip", "unpigz")}
    kinds = (containerd.Containerd, containerd.CurrentContainerd, containerd.PreContainerd)
    found = {f"containerd of {kind.name}": kind.program("containerd") for kind in kinds}
    return named | found | {"crictl": containerd.crictl()}


def machine() -> Row:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    said: Row = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "pullonce": version(),
    }
    for name, program in _tools().items():
        if program:
            said[name] = subprocess.run([program, "--version"], check=False, capture_output=True, text=True).stdout.strip()
    return said


def keep(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, with the machine they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in (machine(), *rows)]
    path.write_text("\n".join(lines) + "\n")


def median(rows: Iterable[Row], value: Callable[[Row], float]) -> float:
    return statistics.median(value(row) for row in rows)


def show(head: list[str], lines: list[list[str]]) -> None:
    """Print a table as Markdown, its columns aligned."""
    widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
    for line in [head, ["-" * width for width in widths], *lines]:
        cells = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("| " + " | ".join(cells) + " |")

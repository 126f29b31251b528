"""The mount tables of this machine, once for each mount namespace in sight.

What cannot be seen from here is not known: mounts in namespaces of other users' processes (unless root asks), of processes in
another PID namespace, and of namespaces that no process lives in.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def tables() -> Iterator[tuple[str, str]]:
    """The id of a process in it and the text of its `mountinfo`, for each mount namespace; our own first."""
    seen: set[str] = set()
    for process in (Path("/proc/self"), *Path("/proc").glob("[0-9]*")):
        try:
            namespace = str((process / "ns" / "mnt").readlink())
            if namespace not in seen:
                table = (process / "mountinfo").read_text(errors="surrogateescape")
                seen.add(namespace)
                yield process.name, table
        except OSError:
            continue  # it has ended, or is none of our business


def processes_with(device: int) -> list[int]:
    """Processes of other mount namespaces than ours in which a file system is mounted, by its device: one for each."""
    name = f"{os.major(device)}:{os.minor(device)}"
    found = []
    for process, table in tables():
        if process != "self" and any(line.split(" ", 3)[2] == name for line in table.splitlines()):
            found.append(int(process))
    return found

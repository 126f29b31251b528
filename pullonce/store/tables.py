"""The mount tables of this machine, once for each mount namespace in sight.

What cannot be seen from here is not known: mounts in namespaces of other users' processes (unless root asks), of processes in
another PID namespace, and of namespaces that no process lives in.
"""

import os
import re
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


def users_of(device: int, place: Path) -> list[int]:
    """Processes of other mount namespaces than ours that have a file system as their own: one for each namespace.

    One that merely has all our mounts, since it was made when they were there, has it in the same place, and does not count.

    Args:
        device: of the file system.
        place: where we have it mounted.
    """
    name = f"{os.major(device)}:{os.minor(device)}"
    found = []
    for process, table in tables():
        lines = [line.split(" ", 5) for line in table.splitlines()]
        places = {_plain(fields[4]) for fields in lines if fields[2] == name}
        if process != "self" and places - {str(place)}:
            found.append(int(process))
    return found


def _plain(path: str) -> str:
    """A path of a mount table as it is: white space and the backslash are octal numbers there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)

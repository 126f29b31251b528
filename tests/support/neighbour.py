"""Another user of this machine, who may do what nobody may."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

NOBODY = 65534

T = TypeVar("T")


def as_nobody(act: Callable[[], T], *, groups: Sequence[int] = ()) -> T:
    """Do something as user `nobody`, in a process of its own, with no group but these; returns what it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            os.setgroups(list(groups))
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                told: tuple[bool, object] = True, act()
            except BaseException:
                told = False, traceback.format_exc()
            with os.fdopen(writing, "wb") as out:
                pickle.dump(told, out)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        answer = said.read()
    os.waitpid(child, 0)
    worked, value = pickle.loads(answer)
    assert worked, f"nobody could not even try:\n{value}"
    return value  # type: ignore[no-any-return]


@contextmanager
def open_place() -> Iterator[Path]:
    """A directory of ours that everybody may look into, as `/var/lib` is. Those of pytest are closed as they are."""
    place = Path(tempfile.mkdtemp(prefix="pullonce-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def opened(paths: Sequence[Path]) -> list[str]:
    """Those of some files that nobody can read."""

    def read() -> list[str]:
        found = []
        for path in paths:
            try:
                with open(path, "rb") as file:
                    file.read(1)
                found.append(str(path))
            except OSError:
                pass
        return found

    return as_nobody(read)

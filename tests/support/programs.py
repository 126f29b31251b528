"""Programs that tests start."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal

import pytest

_PR_SET_PDEATHSIG = 1


def find(name: str, otherwise: str, *, path: str | None = None) -> str:
    """Path of a program. Skips (in CI: fails) if there is none.

    Args:
        otherwise: what to say then.
        path: where to look, instead of PATH.
    """
    found = shutil.which(name, path=path)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(otherwise)
        pytest.skip(otherwise)
    return found


def die_with_parent() -> None:
    """For `preexec_fn`: the process is killed when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

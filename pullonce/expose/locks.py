"""The locks of containers/storage, taken as it takes them: fcntl(2) locks on whole files, which say by their content that
something was written. Source: github.com/containers/storage, pkg/lockfile."""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pullonce.errors import PullonceError

_SAY_AFTER, _GIVE_UP_AFTER, _LOOK_AGAIN = 2.0, 120.0, 0.02
"""Seconds."""
_STAMP = 64
"""Bytes that are new at each write."""


class ViewLocked(PullonceError):
    """Somebody reads the view, and goes on reading it."""


@contextmanager
def writing(paths: Sequence[Path], say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold locks against all readers, in order; yields what tells them, as soon as they may look, that something has changed.

    It is told before what is written changes: should this process die in between, they look, and find what there is.

    Args:
        say: called once, where it has to be waited for.

    Raises:
        ViewLocked: it took too long.
    """
    # Each file is opened once: closing any descriptor of it lets its lock go.
    with ExitStack() as stack:
        files = []
        for path in paths:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, file)
            _lock(file, path, say)
            files.append(file)

        def stamp() -> None:
            for file in files:
                os.pwrite(file, secrets.token_bytes(_STAMP), 0)

        yield stamp


def _lock(file: int, path: Path, say: Callable[[str], None]) -> None:
    began, said = time.monotonic(), False
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):  # fcntl(2) allows both
            waited = time.monotonic() - began
        if waited > _GIVE_UP_AFTER:
            raise ViewLocked(
                f"{path} has been locked by another process for {waited:.0f} s: podman pushes or saves from there, or hangs; "
                "try again when that has ended"
            )
        if waited > _SAY_AFTER and not said:
            say(f"waiting for whoever reads {path.parent.parent}, a `podman push` say")
            said = True
        time.sleep(_LOOK_AGAIN)

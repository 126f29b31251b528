"""Unix sockets to listen on: made with their final mode under the final name in one step, and never taken from a living
process."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pullonce.errors import PullonceError

_LONGEST = 107
"""Bytes of a socket's path. Source: unix(7)."""


class SocketUnusable(PullonceError):
    """A socket cannot be made there; the message says why."""


class SocketTaken(SocketUnusable):
    """Another process listens there."""


def fits(path: Path) -> bool:
    """Whether a socket can have this path: the kernel allows 107 bytes."""
    return len(os.fsencode(path)) <= _LONGEST


@contextmanager
def listening(path: Path, *, mode: int = 0o600) -> Iterator[socket.socket]:
    """A listening socket for as long as the block lasts. What a dead process left under its name is replaced.

    Beside it lies `<name>.lock`, which its owner holds: so two never fight for one name, and the name of one that lives is
    never taken. A client that connects at any moment reaches the old one, the new one, or nobody.

    Raises:
        SocketTaken: another process listens there.
        SocketUnusable: the path is too long, or the disk refuses.
    """
    if not fits(path):
        raise SocketUnusable(f"{path} is too long for a socket: {len(os.fsencode(path))} bytes, at most {_LONGEST} are allowed")
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SocketUnusable(f"no socket can be made at {path}: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SocketTaken(f"another process listens at {path}; stop it, or choose another path") from None
        with _bound(path, mode) as made:
            yield made
    finally:
        os.close(lock)


@contextmanager
def _bound(path: Path, mode: int) -> Iterator[socket.socket]:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # Through the open directory, so that a name a little longer than the final one fits as well.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    draft = f".{os.getpid()}"
    try:
        try:
            made.bind(f"/proc/self/fd/{directory}/{draft}")
            os.chmod(draft, mode, dir_fd=directory)
            made.listen(512)
            os.rename(draft, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as exc:
            why = "something else lies there" if exc.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST) else exc.strerror
            raise SocketUnusable(f"no socket can be made at {path}: {why}") from exc
        try:
            yield made
        finally:
            with _ignoring_absence():
                os.unlink(path.name, dir_fd=directory)
    finally:
        with _ignoring_absence():
            os.unlink(draft, dir_fd=directory)
        os.close(directory)
        made.close()


@contextmanager
def _ignoring_absence() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        pass

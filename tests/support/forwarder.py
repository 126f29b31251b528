"""`python -m tests.support.forwarder PORT SOCKET READY`: what comes to a port of loopback goes to a unix socket.

Once it listens, the file READY is there.

In a network namespace of its own a program reaches nothing but this, and what is behind the socket.
"""

from __future__ import annotations

import socket
import sys
import threading
from pathlib import Path

from tests.support.programs import die_with_parent


def carry(source: socket.socket, target: socket.socket) -> None:
    """All that comes from one to the other, to its end."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, target):
            each.close()


def main() -> None:
    die_with_parent()
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as server:
        Path(sys.argv[3]).touch()
        while True:
            near, _ = server.accept()
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(sys.argv[2])
            except OSError:
                near.close()
                continue
            for pair in ((near, far), (far, near)):
                threading.Thread(target=carry, args=pair, daemon=True).start()


if __name__ == "__main__":
    main()

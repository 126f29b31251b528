"""A gate before a registry: some requests wait until it is opened, so that a test knows what is in flight."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class Gate:
    """Forwards connections to a registry, and holds back requests of one kind while it is closed.

    The address of the gate stands for the registry's in references: `gate.reference("127.0.0.1:5000/x:y")`.

    Args:
        host: the registry's.
        holds: what the path of a request must contain to be held back; of several, one of them.
    """

    def __init__(self, host: str, holds: bytes | tuple[bytes, ...] = b"/blobs/") -> None:
        self._holds = (holds,) if isinstance(holds, bytes) else holds
        self._upstream = host
        name, _, port = host.rpartition(":")
        self._target = (name, int(port))
        self._open = threading.Event()
        self.holding = threading.Event()
        """Set once a request is held back, or would be."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._connections: list[socket.socket] = []

    def reference(self, behind: str) -> str:
        """The same image, by way of the gate."""
        return behind.replace(self._upstream, self.host, 1)

    def open(self) -> None:
        """Let everything through, what waits and what comes."""
        self._open.set()

    def __enter__(self) -> Gate:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.set()
        self._server.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                registry = socket.create_connection(self._target)
            except OSError:
                return
            self._connections += [client, registry]
            threading.Thread(target=self._requests, args=(client, registry), daemon=True).start()
            threading.Thread(target=_pour, args=(registry, client), daemon=True).start()

    def _requests(self, client: socket.socket, registry: socket.socket) -> None:
        """Requests have no bodies here: each ends with its blank line."""
        pending = b""
        while True:
            head, blank, pending = pending.partition(b"\r\n\r\n")
            if not blank:
                try:
                    more = client.recv(65536)
                except OSError:
                    more = b""
                if not more:
                    registry.close()
                    return
                pending = head + more
                continue
            if any(each in head.partition(b"\r\n")[0] for each in self._holds):
                self.holding.set()
                self._open.wait()
            try:
                registry.sendall(head + blank)
            except OSError:
                return


def _pour(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 20):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return

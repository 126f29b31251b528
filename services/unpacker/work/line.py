"""A worker's end of the socket to the service."""

import os
import select
import socket
import threading
import time
from contextlib import suppress

from services.unpacker.work import messages
from services.unpacker.work.messages import Grown, Job, Starving, Working

_REPORT_EVERY = 0.2
"""Seconds between two reports of progress."""


class Abandoned(Exception):
    """Nobody wants the bytes any more that were being waited for."""


class Line:
    """The socket to the service. Read by one thread at a time; any may send, and `abandon`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._abandoned = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._reported = 0.0
        self._sending = threading.Lock()

    def receive(self) -> Job | Grown:
        """The next message. Ends the process when the service is gone."""
        while (end := self._received.find(b"\n")) < 0:
            self._fill()
        text = bytes(self._received[:end])
        del self._received[: end + 1]
        return messages.order(text)

    def send(self, report: messages.Report) -> None:
        with self._sending:
            self._connection.sendall(messages.line(report))

    def job(self) -> Job:
        """The next job. Word of an earlier one that is over may still come in."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._abandoned)
        while not isinstance(message := self.receive(), Job):
            pass
        return message

    def more(self) -> bool:
        """Say that there is nothing to do, and wait until there may be; True once the blob is verified.

        Raises:
            Abandoned: the job has ended otherwise meanwhile.
        """
        self.send(Starving())
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._connection.fileno(), self._abandoned], [], [])
            if self._abandoned in ready:
                raise Abandoned
            self._fill()
        message = self.receive()
        return isinstance(message, Grown) and message.verified

    def abandon(self) -> None:
        """Whoever waits for more shall not: a fault is said when it is found, not when the next bytes come."""
        os.eventfd_write(self._abandoned, 1)

    def seen(self, done: int) -> None:
        """Report progress, at a bounded rate."""
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY:
            self._reported = now
            self.send(Working(done))

    def _fill(self) -> None:
        data = self._connection.recv(1 << 16)
        if not data:
            os._exit(0)
        self._received += data

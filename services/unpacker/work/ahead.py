"""Run an iterator in a thread of its own, a bounded number of chunks ahead."""

import queue
import threading
from collections.abc import Iterator

_AHEAD = 8
"""Chunks of at most 1 MB that may wait for the next thread."""


class Ahead:
    """An iterator that is run in a thread, a bounded number of chunks ahead. What it raises comes out here.

    The thread ends with the iterator: whoever stops early must `stop` and `join`.
    """

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._queue: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ahead")
        self._thread.start()

    def _run(self) -> None:
        try:
            for chunk in self._source:
                self._room.acquire()
                if self._stopped:
                    break
                self._queue.put(chunk)
        except BaseException as exc:
            self._queue.put(exc)
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._queue.get()) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
            self._room.release()

    def stop(self) -> None:
        """Let the thread end at its next chunk."""
        self._stopped = True
        self._room.release(_AHEAD)

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

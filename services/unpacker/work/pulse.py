"""Say at regular times how far a job is, so that the service sees whether it moves at all.

A thread of its own says it, whatever the others do: one that goes round in circles lets it run, but gets no further.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from services.unpacker.work.line import Line
from services.unpacker.work.messages import BEATS, Moved


class Pulse:
    """`with Pulse(line, patience, steps):` reports while the block runs.

    Args:
        patience: seconds without a step after which the service takes the job for stuck.
        steps: a number that grows with every piece of work done, and never shrinks.
    """

    def __init__(self, line: Line, patience: float, steps: Callable[[], int]) -> None:
        self._line = line
        self._every = patience / BEATS
        self._steps = steps
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):  # the service is gone, and so this process
            while not self._over.wait(self._every):
                self._line.send(Moved(self._steps()))

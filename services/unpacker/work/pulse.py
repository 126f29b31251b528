"""Say at regular times how far a job is, so that the service sees whether it moves at all.

A thread of its own says it, whatever the others do: one that goes round in circles lets it run, but gets no further.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from services.unpacker.work.line import Line
from services.unpacker.work.messages import BEATS, Moved


class Pulse:
    """Reports for one job after another: `with pulse.during(patience, steps):` while the block runs."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._every = 0.0
        self._steps: Callable[[], int] | None = None
        self._job = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    @contextmanager
    def during(self, patience: float, steps: Callable[[], int]) -> Iterator[None]:
        """Report on a job.

        Args:
            patience: seconds without a step after which the service takes it for stuck.
            steps: a number that grows with every piece of work done, and never shrinks.
        """
        with self._job:
            self._steps, self._every = steps, patience / BEATS
        if self._thread.ident is None:
            self._thread.start()  # once: to start one costs as much as a small layer
        try:
            yield
        finally:
            with self._job:
                self._steps = None

    def _run(self) -> None:
        with suppress(OSError):  # the service is gone, and so this process
            while True:
                time.sleep(self._every)
                with self._job:
                    if self._steps is not None:
                        self._line.send(Moved(self._steps()))

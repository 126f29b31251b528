"""Have tar-split made by processes beside this one, a layer a process at a time."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType

import msgspec

from pullonce.store.splits import SplitDone, SplitFailed, SplitJob, SplitProgress, SplitSaid

_LONGEST_WAIT = 10.0


class Splitters:
    """`with Splitters() as splitters`: processes that make tar-split; started when they are needed, ended with the block.

    Args:
        most: processes at a time; as many as there are processors where it is not said.
    """

    def __init__(self, most: int = 0) -> None:
        self._most = most or len(os.sched_getaffinity(0))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Splitters":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            assert process.stdin and process.stdout
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(_LONGEST_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()

    def make(
        self,
        jobs: Sequence[SplitJob],
        done: Callable[[int, SplitDone], None],
        failed: Callable[[int, str], None],
        tell: Callable[[int], None],
    ) -> None:
        """Carry out jobs. All is told in this thread, in any order.

        Args:
            done: called with the number of a job that is done, and what came of it.
            failed: called with the number of one that failed, and why.
            tell: called with bytes of blobs that were read since.
        """
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        said: queue.SimpleQueue[tuple[int, SplitSaid]] = queue.SimpleQueue()
        for number in range(len(jobs)):
            todo.put(number)
        threads = []
        for _ in range(min(self._most, len(jobs))):
            threads.append(threading.Thread(target=_drive, args=(self._started, jobs, todo, said), daemon=True))
            threads[-1].start()
        left = len(jobs)
        while left:
            number, what = said.get()
            match what:
                case SplitProgress():
                    tell(what.read)
                case SplitDone():
                    done(number, what)
                    left -= 1
                case SplitFailed():
                    failed(number, what.why)
                    left -= 1
        for thread in threads:
            thread.join()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "services.unpacker.split_layers"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._processes.append(process)
        return process


def _drive(
    start: Callable[[], "subprocess.Popen[bytes]"],
    jobs: Sequence[SplitJob],
    todo: "queue.SimpleQueue[int]",
    said: "queue.SimpleQueue[tuple[int, SplitSaid]]",
) -> None:
    """Have a process carry out jobs until there are none, and another one where it dies; what they say goes to the queue."""
    process = None
    while True:
        try:
            number = todo.get_nowait()
        except queue.Empty:
            return
        process = process or start()
        try:
            for what in _asked(process, jobs[number]):
                said.put((number, what))
        except (OSError, EOFError, msgspec.MsgspecError) as exc:
            process.kill()
            said.put((number, SplitFailed(why=f"the process that reads it ended with code {process.wait()} {exc}".rstrip())))
            process = None


def _asked(process: "subprocess.Popen[bytes]", job: SplitJob) -> Iterator[SplitSaid]:
    """What a process says of a job, to its end."""
    assert process.stdin and process.stdout
    process.stdin.write(msgspec.json.encode(job) + b"\n")
    process.stdin.flush()
    while line := process.stdout.readline():
        what: SplitSaid = msgspec.json.decode(line, type=SplitSaid)
        yield what
        if not isinstance(what, SplitProgress):
            return
    raise EOFError

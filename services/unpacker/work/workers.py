"""Worker processes: spawned once and kept, as many at work as there are cores, and a few more that wait for bytes.

A worker that has used up its bytes holds no slot: another layer goes on in another process. Where there are too many of them,
the one that has waited longest gives its process up; its layer starts anew once its blob is complete.
"""

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pullonce.errors import PullonceError, Retryable
from services.unpacker.work import messages
from services.unpacker.work.messages import Failed, Grown, Job, Starving, Unpacked, Working

_MAX_LINE = 1 << 28
"""Bytes of one report; a layer of a million unnamed directories needs some."""


class Preempted(PullonceError):
    """The worker was taken away for a layer whose bytes are there."""


class WorkerProcess:
    """One process; carries out one job at a time."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.preempted = False
        self.on_starving: Callable[[bool], None] = lambda starving: None
        self.on_progress: Callable[[int], None] = lambda done: None

    @property
    def pid(self) -> int:
        return self._process.pid

    @staticmethod
    async def spawn() -> "WorkerProcess":
        """Start one."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.unpacker.work.process", str(theirs.fileno()), str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_MAX_LINE)
        return WorkerProcess(process, reader, writer)

    def grown(self, *, verified: bool) -> None:
        """Tell it to look again."""
        self.on_starving(False)
        self._writer.write(messages.line(Grown(verified)))

    async def carry_out(self, job: Job) -> Unpacked | Failed:
        """Have a job done.

        Raises:
            Preempted: another layer needed the process.
            Retryable: the process died.
        """
        self._writer.write(messages.line(job))
        while text := await self._reader.readline():
            match messages.report(text):
                case Starving():
                    self.on_starving(True)
                case Working(done):
                    self.on_progress(done)
                case Unpacked() | Failed() as end:
                    return end
        if self.preempted:
            raise Preempted("another layer needed the process")
        code = await self._process.wait()
        raise Retryable(f"a worker process died with exit code {code}", code="unpack.crashed", concerns="key")

    def preempt(self) -> None:
        """Take it away from its job."""
        self.preempted = True
        self._kill()

    def _kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """End it and wait for it."""
        self._writer.close()
        self._kill()
        await self._process.wait()


class Pool:
    """The worker processes of this service.

    Args:
        limit: layers at work at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._most = 4 * limit
        self._processes = 0
        self._free: list[WorkerProcess] = []
        self._starving: dict[WorkerProcess, None] = {}
        self._busy: set[WorkerProcess] = set()
        self._granted = 0
        """Slots given to a job that is about to take its process."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.idle = asyncio.Event()
        """Set while no job is in a process."""
        self.idle.set()

    @property
    def starving(self) -> int:
        """Processes that have used up the bytes of their layer."""
        return len(self._starving)

    def processes(self) -> list[int]:
        """Process ids of all workers."""
        return [worker.pid for worker in (*self._free, *self._busy)]

    async def open(self) -> None:
        """Start the processes."""
        self._free = list(await asyncio.gather(*(WorkerProcess.spawn() for _ in range(self._limit))))
        self._processes = self._limit

    async def close(self) -> None:
        """End the processes."""
        everyone = [*self._free, *self._busy]
        self._free = []
        await asyncio.gather(*(worker.stop() for worker in everyone), return_exceptions=True)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[WorkerProcess]:
        """A process of one's own, as soon as a slot is free. Leaving with an error ends the process."""
        await self._slot()
        self.idle.clear()
        try:
            worker = await self._take()
        finally:
            self._granted -= 1
        self._busy.add(worker)
        worker.on_starving = lambda starving: self._mark(worker, starving=starving)
        try:
            yield worker
        except BaseException:
            self._release(worker, reuse=False)
            await worker.stop()
            raise
        if not self._release(worker, reuse=True):
            await worker.stop()

    async def _slot(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._granted -= 1
                self._admit()
            raise

    async def _take(self) -> WorkerProcess:
        if self._free:
            return self._free.pop()
        self._processes += 1
        try:
            return await WorkerProcess.spawn()
        except BaseException:
            self._processes -= 1
            raise

    def _admit(self) -> None:
        """Give out slots, in order: to as many as there are cores, not counting those that wait for bytes."""
        while self._waiting and len(self._busy) - len(self._starving) + self._granted < self._limit:
            if not self._free and self._processes >= self._most:
                longest = next(iter(self._starving), None)
                if longest is None:
                    return
                self._forget(longest)
                self._processes -= 1
                longest.preempt()
            turn = self._waiting.popleft()
            if not turn.done():
                self._granted += 1
                turn.set_result(None)

    def _mark(self, worker: WorkerProcess, *, starving: bool) -> None:
        if starving and worker in self._busy:
            self._starving[worker] = None
            self._admit()
        elif not starving:
            self._starving.pop(worker, None)

    def _forget(self, worker: WorkerProcess) -> None:
        self._busy.discard(worker)
        self._starving.pop(worker, None)

    def _release(self, worker: WorkerProcess, *, reuse: bool) -> bool:
        """Take a process back; False where it is not kept."""
        self._forget(worker)
        worker.on_progress = lambda done: None
        kept = reuse and not worker.preempted and len(self._free) < self._limit
        if kept:
            self._free.append(worker)
        elif not worker.preempted:
            self._processes -= 1
        if not self._busy and not self._granted:
            self.idle.set()
        self._admit()
        return kept

"""Worker processes: spawned once and kept, as many at work as there are cores, and a few more that wait for bytes.

A worker that has used up its bytes holds no slot: another layer goes on in another process. Where there are too many of them,
the one that has waited longest gives its process up; its layer starts anew once its blob is complete.
"""

import asyncio
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pullonce.errors import PullonceError, Retryable
from services.unpacker.work import messages
from services.unpacker.work.messages import BEATS, Failed, Grown, Job, Moved, Starving, Unpacked, Working

log = logging.getLogger(__name__)

_REAPED = 5.0
"""Seconds in which a killed process is gone; one that hangs in the kernel, on a dead disk say, is not waited for."""
_MAX_LINE = 1 << 28
"""Bytes of one report; a layer of a million unnamed directories needs some."""


class Preempted(PullonceError):
    """The worker was taken away for a layer whose bytes are there."""


class Stuck(PullonceError):
    """The worker read, wrote and finished nothing for as long as it was given."""


class WorkerProcess:
    """One process; carries out one job at a time."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.preempted = False
        self._starving = False
        self.on_starving: Callable[[bool], None] = lambda starving: None
        self.on_progress: Callable[[int], None] = lambda done: None

    @property
    def pid(self) -> int:
        return self._process.pid

    @staticmethod
    async def spawn() -> "WorkerProcess":
        """Start one. Raises Retryable where the machine has no room for another process."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.unpacker.work.process", str(theirs.fileno()), str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        except OSError as exc:
            ours.close()
            raise Retryable(
                f"no worker process could be started: {exc.strerror}", code="unpack.failed", concerns="key"
            ) from exc
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_MAX_LINE)
        return WorkerProcess(process, reader, writer)

    def grown(self, *, verified: bool) -> None:
        """Tell it to look again."""
        self._starve(False)
        self._writer.write(messages.line(Grown(verified)))

    async def carry_out(self, job: Job) -> Unpacked | Failed:
        """Have a job done.

        Raises:
            Preempted: another layer needed the process.
            Stuck: it got no further, though its bytes were there.
            Retryable: the process died.
        """
        self._writer.write(messages.line(job))
        still, steps = 0, -1
        while (text := await self._said(job.limits.patience / BEATS)) != b"":
            match messages.report(text) if text else Moved(steps):
                case Starving():
                    self._starve(True)
                case Working(done):
                    still = 0
                    self.on_progress(done)
                case Moved(now):
                    still = still + 1 if now == steps and not self._starving else 0
                    steps = now
                case Unpacked() | Failed() as end:
                    return end
            if still > BEATS:
                raise Stuck(f"nothing was read, written or finished for {job.limits.patience:.0f} s")
        if self.preempted:
            raise Preempted("another layer needed the process")
        code = await self._process.wait()
        raise Retryable(f"a worker process died with exit code {code}", code="unpack.crashed", concerns="key")

    async def _said(self, seconds: float) -> bytes | None:
        """The next line, empty at the end; None after some silence. Counted, not measured: a machine that slept has said
        nothing only once."""
        try:
            async with asyncio.timeout(1.5 * seconds):
                line = await self._reader.readline()
            return line if line.endswith(b"\n") else b""  # one that was killed may leave half a line
        except TimeoutError:
            return None

    def _starve(self, starving: bool) -> None:
        self._starving = starving
        self.on_starving(starving)

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
        try:
            async with asyncio.timeout(_REAPED):
                await self._process.wait()
        except TimeoutError:
            log.error("worker process %d does not end; a disk does not answer", self.pid)


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
        except BaseException:
            self._give_back()
            raise
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
                self._give_back()
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
        while self._has_waiting() and len(self._busy) - len(self._starving) + self._granted < self._limit:
            if not self._free and self._processes >= self._most:
                longest = next(iter(self._starving), None)
                if longest is None:
                    return
                self._forget(longest)
                self._processes -= 1
                longest.preempt()
            self._granted += 1
            self._waiting.popleft().set_result(None)

    def _has_waiting(self) -> bool:
        """Whether anybody still waits for a slot. Whoever was cancelled meanwhile is passed over and costs no process."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()
        return bool(self._waiting)

    def _give_back(self) -> None:
        """A slot was given, and nothing came of it: whoever waits has it, or nothing is at work."""
        self._granted -= 1
        self._settle()

    def _settle(self) -> None:
        if not self._busy and not self._granted:
            self.idle.set()
        self._admit()

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
        self._settle()
        return kept

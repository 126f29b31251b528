"""Child processes that are kept running: started, restarted when they die, stopped in order, never left behind."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from pullonce.errors import PullonceError

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
STEADY = 30.0
"""A child that lived this long may be restarted at once."""
LONGEST_PAUSE = 5.0
GIVE_UP = 5
"""Deaths in a row, before everything was ready for the first time, after which starting is hopeless."""

LONGEST_LINE = 16 * 1024
"""Bytes of a line of a child's output; what is beyond them is counted and left out."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class PartBroken(PullonceError):
    """A part cannot be started."""


class Child:
    """One child process and its life.

    Args:
        name: what logs call it.
        command: program and arguments.
        environ: its whole environment.
        keep: descriptors it inherits.
        line: called with each line of its output; None leaves it our stderr.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        keep: Sequence[int] = (),
        line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.ready = False
        """Set once it did its work: from then on it is restarted for ever."""
        self.changed = asyncio.Event()
        """Set whenever a new process was started."""
        self._command = list(command)
        self._environ = dict(environ)
        self._keep = tuple(keep)
        self._line = line
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 between two."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    def renew(self) -> None:
        """End the present process, if there is one, so that another takes its place."""
        if self._process and self._process.returncode is None:
            self._process.terminate()

    async def run(self) -> None:
        """Keep it running until cancelled, then stop it.

        Raises:
            PartBroken: it dies again and again before it was ever ready.
        """
        deaths, pause = 0, 0.0
        while True:
            born = time.monotonic()
            code = await self._live()
            if time.monotonic() - born > STEADY:
                deaths, pause = 0, 0.0
            deaths += 1
            if not self.ready and deaths >= GIVE_UP:
                raise PartBroken(f"the {self.name} does not start: it ended {deaths} times, last with {_how(code)}")
            log.warning("the %s ended with %s; starting it again", self.name, _how(code), extra={"pause": pause})
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, 0.1), LONGEST_PAUSE)

    async def _live(self) -> int:
        """One process from start to end; stopped when we are cancelled."""
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE if self._line else None,
            env=self._environ,
            pass_fds=self._keep,
            # Its own session, so that Ctrl-C reaches us alone and we can stop things in order.
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )
        self.changed.set()
        try:
            if self._line:
                assert process.stderr is not None
                await _read_lines(process.stderr, self._line)
            return await process.wait()
        except asyncio.CancelledError:
            await self._stop(process)
            raise

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        reading = asyncio.create_task(_drain(process.stderr)) if process.stderr else None
        try:
            async with asyncio.timeout(GRACE):
                await process.wait()
        except TimeoutError:
            log.warning("the %s does not stop; killing it", self.name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it leads its own group: its workers go with it
            await process.wait()
        if reading:
            await reading


@contextlib.asynccontextmanager
async def running(parts: Sequence[Child]) -> AsyncIterator[None]:
    """Run parts for as long as the block lasts; all are stopped, side by side, before it is left.

    Raises:
        ExceptionGroup: of PartBroken, when one cannot be started; the block is cancelled.
    """
    async with asyncio.TaskGroup() as tasks:
        lives = [tasks.create_task(part.run(), name=part.name) for part in parts]
        try:
            yield
        finally:
            for life in lives:
                life.cancel()


class Lines:
    """Cuts what a child writes into lines, however long they are: of one that is too long, its beginning is kept."""

    def __init__(self) -> None:
        self._begun = b""
        self._left_out = 0

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete with these bytes, without their ends."""
        *ends, rest = data.split(b"\n")
        found = [self._take(each) for each in ends]
        self._keep(rest)
        return found

    def last(self) -> list[str]:
        """What was begun and never ended, if anything was."""
        return [self._take(b"")] if self._begun else []

    def _keep(self, part: bytes) -> None:
        room = LONGEST_LINE - len(self._begun)
        self._begun += part[:room]
        self._left_out += max(len(part) - room, 0)

    def _take(self, part: bytes) -> str:
        self._keep(part)
        said = self._begun.decode(errors="replace").rstrip()
        if self._left_out:
            said += f"… ({self._left_out} more bytes)"
        self._begun, self._left_out = b"", 0
        return said


async def _read_lines(stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
    """Not `async for`: asyncio gives up on a line above its limit, and with it on the whole child."""
    lines = Lines()
    while data := await stream.read(65536):
        for line in lines.feed(data):
            take(line)
    for line in lines.last():
        take(line)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _die_with_parent(parent: int) -> Callable[[], None]:
    """Runs in the child before exec: SIGTERM when the supervisor dies, however it dies. Source: prctl(2), PR_SET_PDEATHSIG."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return prepare

"""What every long-running process of pullonce does alike: logs, signals, the event loop, the exit code, the answer to a ping.

    if __name__ == "__main__":
        run(main, "fetcher")

Exit codes: 0 it was told to stop and did, even if the bus went away meanwhile; 1 it cannot work (an error of
`pullonce.errors` or a setting, one line says which); 70 a defect (the traceback is in the log). A supervisor restarts after 1
and 70.
"""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import NoReturn

from pullonce import environment
from pullonce.bus.ports import Signals, Subscription
from pullonce.config import SettingInvalid, log_level
from pullonce.errors import BusError, PullonceError
from pullonce.printable import escaped, printable
from pullonce.trace import current as current_trace
from schemas.status import STARTING, Pong, encode
from schemas.subjects import HERE_SUBJECT, PING_SUBJECT

log = logging.getLogger(__name__)

CANNOT_WORK = 1
DEFECT = 70
"""EX_SOFTWARE of sysexits.h."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def run(main: Callable[[], Awaitable[None]], name: str) -> NoReturn:
    """Run a service until it ends or is told to stop, then leave the process with the fitting exit code.

    SIGTERM and SIGINT cancel the main task, which drains in its `finally` clauses and context managers; a second one
    leaves at once. Whatever `main` needs from the environment it reads itself, so that a wrong setting is said clearly.
    """
    stopping = False

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            nonlocal stopping
            if stopping:
                os._exit(128 + number)
            stopping = True
            log.info("stopping", extra={"signal": signal.Signals(number).name})
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
        await main()

    try:
        configure_logging(name)
        _not_yet_ready()
        # What was imported stays. To look through it for garbage takes 15 to 70 ms, and it would happen in mid-pull.
        gc.freeze()
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            runner.run(watched())
    except BaseException as exc:
        code = _exit_code(exc, stopping)
    else:
        code = 0
    logging.shutdown()
    sys.exit(code)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (1.1 to 1.7 times the throughput on the bus); nothing depends on it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _exit_code(exc: BaseException, stopping: bool) -> int:
    """Say what ended the process, and turn it into an exit code."""
    if isinstance(exc, asyncio.CancelledError) and stopping:
        return 0
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else 0 if exc.code is None else CANNOT_WORK
    known, defects = _sorted_out(exc)
    if stopping and not defects and all(isinstance(each, BusError) for each in known):
        # What could not be said any more is said by whoever takes the orders next.
        log.info("stopped while the bus was away: %s", known[0])
        return 0
    for each in known:
        log.error("%s", each, extra={"error": type(each).__name__})
    if defects:
        log.critical("a defect ended the process: %s", defects[0], exc_info=exc)
        return DEFECT
    return CANNOT_WORK


def _sorted_out(exc: BaseException) -> tuple[list[BaseException], list[BaseException]]:
    """The errors raised on purpose, and all others, out of the groups in which tasks hand them on."""
    if isinstance(exc, BaseExceptionGroup):
        pairs = [_sorted_out(each) for each in exc.exceptions]
        return [e for known, _ in pairs for e in known], [e for _, defects in pairs for e in defects]
    if isinstance(exc, (PullonceError, SettingInvalid)):
        return [exc], []
    return [], [exc]


# -- logs --------------------------------------------------------------------------------------------------------------


class JsonLines(logging.Formatter):
    """One JSON object a record: time (UTC), level, service, logger, message, trace, and the record's extra fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **({"trace_id": trace.split("-")[1]} if (trace := current_trace()) else {}),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return escaped(json.dumps(line, default=str, ensure_ascii=False))


class ReadableLines(logging.Formatter):
    """The same for people at a terminal: time of day, level, service, message, then the extra fields."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        line = printable(f"{record.getMessage()}{extra}")
        line = f"{when} {record.levelname.lower():<8} {self._service:<11} {line}"
        return f"{line}\n{escaped(self.formatException(record.exc_info))}" if record.exc_info else line


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def configure_logging(service: str) -> None:
    """Send all logs to stderr: readable lines on a terminal, JSON lines otherwise. `PULLONCE_LOG_LEVEL` chooses the level.

    Raises:
        SettingInvalid: there is no such level; logs go out at level info until then.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ReadableLines(service) if sys.stderr.isatty() else JsonLines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.setLevel(log_level())


# -- discovery ---------------------------------------------------------------------------------------------------------


def version() -> str:
    """The installed version of pullonce; `unknown` where it runs from a bare tree."""
    try:
        return installed_version("pullonce")
    except PackageNotFoundError:
        return "unknown"


async def answer_pings(
    signals: Signals, service: str, store: str = "", details: Callable[[], Mapping[str, str | int | float]] | None = None
) -> Subscription:
    """Answer `pullonce.ping` from now on, and say so once: every process tells for itself what it is (`schemas.status.Pong`).

    Args:
        service: `coordinator`, `fetcher`, `unpacker`…
        store: the store it serves; empty where it serves all.
        details: called for each answer; what the service wants to say of itself. Call this once the service does its work:
            `pullonce up` takes the answer for readiness.
    """

    def pong(_: bytes) -> bytes:
        return encode(_pong(service, store, dict(details()) if details else {}))

    subscription = await signals.answer(PING_SUBJECT, pong)
    await signals.publish(HERE_SUBJECT, pong(b""))
    tell_supervisor()
    return subscription


async def tell_progress(signals: Signals, service: str, progress: Callable[[], tuple[int, int]]) -> None:
    """Say every second how far a service is that has still to read something before it begins. For ever.

    Whoever waits for it (`pullonce up`, systemd) goes on waiting while the position advances.

    Args:
        progress: the position it has come to, and the one at which it will begin.
    """
    while True:
        await asyncio.sleep(1.0)
        position, end = progress()
        log.info("reading the event log: %d of %d", position, end)
        await signals.publish(HERE_SUBJECT, encode(_pong(service, "", {STARTING: end, "position": position})))
        _notify(f"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading the event log: {position} of {end}")


def _pong(service: str, store: str, details: dict[str, str | int | float]) -> Pong:
    return Pong(service=service, store=store, pid=os.getpid(), host=socket.gethostname(), version=version(), details=details)


def _notify(words: str) -> None:
    """Tell systemd, where it started this process (sd_notify(3))."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(words.encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def _not_yet_ready() -> None:
    """What the process before this one said of itself says nothing of this one: a container's /tmp outlives its restart."""
    if path := environment.ready_file():
        Path(path).unlink(missing_ok=True)


def tell_supervisor() -> None:
    """Say that the work has begun to whoever started this process: systemd, or a container's health check, which looks for the
    file `PULLONCE_READY_FILE`."""
    _notify("READY=1")
    if path := environment.ready_file():
        with open(path, "w"):
            pass

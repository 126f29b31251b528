"""`python -m services.ledger`: its settings and its wiring. `python -m services.ledger rebuild FILE` makes a file anew from
the log, for the service that then takes it over.

Environment: see `services.ledger.settings`.
"""

import asyncio
import fcntl
import logging
import os
import sys
import time
from pathlib import Path

from pullonce import private
from pullonce.bus.nats.bus import NatsBus, connect
from pullonce.errors import PullonceError
from pullonce.process.runtime import answer_pings, run, version
from pullonce.store.disk import disk_errors
from pullonce.telemetry.http import Health, telling
from pullonce.telemetry.metrics import Meter
from schemas.ledger import Done
from schemas.subjects import LEDGER_SUBJECT, progress_now_subject
from services.ledger.answers.live import Live
from services.ledger.answers.queries import NoAnswer
from services.ledger.answers.questions import Questions
from services.ledger.answers.roll_call import Roll
from services.ledger.fold import rebuild
from services.ledger.fold.aging import Aging
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.keeper import Keeper
from services.ledger.fold.projection import LedgerTaken
from services.ledger.measures import Measures
from services.ledger.settings import LedgerSettings
from services.ledger.web.routes import Pages, Sources, serving
from services.ledger.web.watching import Viewers

log = logging.getLogger(__name__)

_ANSWER = 0.15
"""Seconds that workers have to say how far they are."""


_YIELDS = 10
"""How nice the ledger is to everything else of its session or control group: it may lag, while a pull is waited for."""


async def main() -> None:
    os.nice(_YIELDS)
    settings = LedgerSettings.from_env()
    with disk_errors(settings.path.parent):
        private.directory(str(settings.path.parent), "")
        lock = _lock(settings.path)
        rebuild.clear(settings.path.parent)
    try:
        meter = Meter("ledger", "", version())
        async with telling(meter) as health, connect(settings.bus) as bus:
            file = await asyncio.to_thread(LedgerFile, settings.path, memory=settings.memory)
            try:
                await _keep(settings, bus, file, meter, health)
            finally:
                await asyncio.to_thread(file.close)
    finally:
        os.close(lock)


async def _keep(settings: LedgerSettings, bus: NatsBus, file: LedgerFile, meter: Meter, health: Health) -> None:
    """Keep an open ledger, and answer for it."""
    keeper, live = Keeper(bus.log, file), Live()

    async def ask(store: str) -> None:
        await bus.signals.gather(progress_now_subject(store), b"", timeout=_ANSWER, take=live.hear_all)

    watching, measures = Viewers(file, keeper, live, ask), Measures(file, keeper, meter)
    questions = Questions(file, live, _Rebuilding(settings, keeper).run, ask)

    def state() -> str:
        return keeper.state if bus.signals.connected else "no bus"

    health.ready = lambda: state() == "ready"
    sources = Sources(questions, watching, Roll(bus.signals).encoded, meter.shown, state, settings.token)
    await bus.signals.subscribe("progress.>", live.hear)
    async with serving(Pages(sources), settings.host, settings.port) as address:
        await bus.signals.answer(LEDGER_SUBJECT, questions.answer_encoded, queue="ledger")
        await answer_pings(
            bus.signals,
            "ledger",
            details=lambda: {**keeper.details(), "http": address, **health.details()},
        )
        log.info("the ledger is open", extra={"position": keeper.position, "http": address})
        async with asyncio.TaskGroup() as tasks:
            for part in (keeper, watching, measures, Aging(file, days=settings.days, size=settings.size)):
                tasks.create_task(part.run())


def _lock(path: Path) -> int:
    """One ledger a file."""
    fd = os.open(path.with_name("lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise LedgerTaken(f"{path} is kept by another process") from None
    return fd


class _Rebuilding:
    """Has the ledger made anew, by a process of its own so that questions are answered meanwhile."""

    def __init__(self, settings: LedgerSettings, keeper: Keeper) -> None:
        self._settings = settings
        self._keeper = keeper
        self._running = False

    async def run(self) -> Done:
        if self._running:
            raise NoAnswer("the ledger is being made anew already", code="ledger.busy")
        self._running = True
        try:
            return await self._run()
        finally:
            self._running = False

    async def _run(self) -> Done:
        began = time.monotonic()
        # Of a name of its own: another one's process may not know yet that its ledger was killed.
        made = self._settings.path.with_name(f"{rebuild.NAME}-{os.getpid()}.duckdb")
        try:
            await self._make(made)
            await self._keeper.exchange(lambda path: rebuild.replace(path, made))
        except Exception:
            await asyncio.to_thread(rebuild.clear, made.parent)
            raise
        seconds = time.monotonic() - began
        return Done(message=f"made anew up to position {self._keeper.position}", events=self._keeper.position, seconds=seconds)

    async def _make(self, made: Path) -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.ledger", "rebuild", str(made))
        try:
            if await process.wait():
                raise NoAnswer("the ledger could not be made anew; its log says why", code="ledger.rebuild")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def make_anew() -> None:
    """The process that makes a file anew."""
    settings = LedgerSettings.from_env()
    if len(sys.argv) != 3 or sys.argv[1] != "rebuild":
        raise PullonceError("usage: python -m services.ledger [rebuild FILE]")
    async with connect(settings.bus) as bus:
        await rebuild.Rebuild(bus.log, Path(sys.argv[2]), memory=settings.memory).run()


if __name__ == "__main__":
    run(main if len(sys.argv) == 1 else make_anew, "ledger")

"""`python -m services.coordinator`: its settings and its wiring.

Environment: see `services.coordinator.settings`.
"""

import asyncio
import os
import secrets
from functools import partial
from hashlib import sha256
from pathlib import Path

from pullonce.bus.metered import MeteredBus
from pullonce.bus.nats.bus import connect
from pullonce.process.runtime import answer_pings, run, tell_progress, version
from pullonce.telemetry.http import telling
from pullonce.telemetry.metrics import Meter
from pullonce.telemetry.spanning import spanning
from schemas.subjects import STATUS_SUBJECT
from services.coordinator.audit import Audit
from services.coordinator.handlers import Coordinator
from services.coordinator.measures import show
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.status import describe
from services.coordinator.watching import SourceWatch


def place() -> str:
    """Where process ids mean what they mean here: 8 hex digits of this boot and its namespace of processes."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return sha256(f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}".encode()).hexdigest()[:8]


def has_ended(here: str, name: str) -> bool:
    """A coordinator of this place whose process is not there any more: nobody need wait for its lease to run out."""
    parts = name.split("-")
    return len(parts) == 4 and parts[1] == here and not Path(f"/proc/{parts[2]}").exists()


async def main() -> None:
    settings = CoordinatorSettings.from_env()
    meter = Meter("coordinator", "", version())
    async with (
        telling(meter) as health,
        spanning("coordinator", "", version()) as spans,
        connect(settings.bus) as connection,
    ):
        bus = MeteredBus(connection, meter)
        here = place()
        me = f"coordinator-{here}-{os.getpid()}-{secrets.token_hex(4)}"
        gone = partial(has_ended, here)
        coordinator = Coordinator(bus, me, spans, lease=settings.lease, log_bytes=settings.log_bytes, gone=gone)
        show(coordinator, meter)
        health.ready = lambda: coordinator.live and connection.signals.connected

        async def answer() -> None:
            reading.cancel()
            await bus.signals.answer(STATUS_SUBJECT, lambda _: describe(coordinator.board), queue="coordinator")
            said = lambda: {"position": coordinator.board.position, **health.details()}  # noqa: E731
            await answer_pings(bus.signals, "coordinator", details=said)

        slow = {"seconds": settings.slow_seconds, "rate": settings.slow_rate}
        watching = SourceWatch(bus, coordinator.board.waits, me, lambda: coordinator.live, **slow)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watching.run())
            tasks.create_task(Audit(bus.orders, coordinator.wanted, coordinator.pursue_anew).run())
            reading = tasks.create_task(tell_progress(bus.signals, "coordinator", coordinator.progress))
            await coordinator.run(ready=answer)


if __name__ == "__main__":
    run(main, "coordinator")

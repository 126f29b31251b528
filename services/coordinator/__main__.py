"""`python -m services.coordinator`: its settings and its wiring.

Environment: `PULLONCE_NATS_URL`, `PULLONCE_ACK_WAIT`, `PULLONCE_REPLICAS` (see `pullonce.config`); `PULLONCE_CLAIM_LEASE`,
`PULLONCE_LOG_BYTES`, `PULLONCE_SLOW_SECONDS`, `PULLONCE_SLOW_RATE`.
"""

import asyncio
import os
import secrets

from pullonce.bus.metered import MeteredBus
from pullonce.bus.nats.bus import connect
from pullonce.config import BusSettings, number
from pullonce.process.runtime import answer_pings, run, tell_progress, version
from pullonce.telemetry.http import telling
from pullonce.telemetry.metrics import Meter
from pullonce.telemetry.spanning import spanning
from schemas.subjects import STATUS_SUBJECT
from services.coordinator.claim import HOLD
from services.coordinator.handlers import Coordinator
from services.coordinator.keeper import LOG_BYTES
from services.coordinator.measures import show
from services.coordinator.status import describe
from services.coordinator.watching import RATE, SECONDS, Watching


async def main() -> None:
    log_bytes = int(number(os.environ, "PULLONCE_LOG_BYTES", LOG_BYTES, low=0, high=2**60))
    lease = number(os.environ, "PULLONCE_CLAIM_LEASE", HOLD, low=1.0, high=3600.0)
    slow_seconds = number(os.environ, "PULLONCE_SLOW_SECONDS", SECONDS, low=0.5, high=3600.0)
    slow_rate = number(os.environ, "PULLONCE_SLOW_RATE", RATE, low=0.0, high=1e12)
    meter = Meter("coordinator", "", version())
    async with (
        telling(meter) as health,
        spanning("coordinator", "", version()) as spans,
        connect(BusSettings.from_env("coordinator")) as connection,
    ):
        bus = MeteredBus(connection, meter)
        me = f"coordinator-{os.getpid()}-{secrets.token_hex(4)}"
        coordinator = Coordinator(bus, me, spans, lease=lease, log_bytes=log_bytes)
        show(coordinator, meter)
        health.ready = lambda: coordinator.live and connection.signals.connected

        async def answer() -> None:
            reading.cancel()
            await bus.signals.answer(STATUS_SUBJECT, lambda _: describe(coordinator.board), queue="coordinator")
            said = lambda: {"position": coordinator.board.position, **health.details()}  # noqa: E731
            await answer_pings(bus.signals, "coordinator", details=said)

        watching = Watching(bus, coordinator.board.waits, me, lambda: coordinator.live, seconds=slow_seconds, rate=slow_rate)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watching.run())
            reading = tasks.create_task(tell_progress(bus.signals, "coordinator", coordinator.progress))
            await coordinator.run(ready=answer)


if __name__ == "__main__":
    run(main, "coordinator")

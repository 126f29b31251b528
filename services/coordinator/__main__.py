"""`python -m services.coordinator`: its settings and its wiring.

Environment: `PULLONCE_NATS_URL`, `PULLONCE_ACK_WAIT`, `PULLONCE_REPLICAS` (see `pullonce.config`).
"""

import os
import secrets

from pullonce.bus.nats import connect
from pullonce.config import BusSettings
from pullonce.runtime import answer_pings, run
from schemas.subjects import STATUS_SUBJECT
from services.coordinator.handlers import Coordinator
from services.coordinator.status import describe


async def main() -> None:
    async with connect(BusSettings.from_env("coordinator")) as bus:
        coordinator = Coordinator(bus, me=f"coordinator-{os.getpid()}-{secrets.token_hex(4)}")

        async def answer() -> None:
            await bus.signals.answer(STATUS_SUBJECT, lambda _: describe(coordinator.board), queue="coordinator")
            await answer_pings(bus.signals, "coordinator", details=lambda: {"position": coordinator.board.position})

        await coordinator.run(ready=answer)


if __name__ == "__main__":
    run(main, "coordinator")

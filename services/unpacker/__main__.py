"""`python -m services.unpacker`: its settings and its wiring.

Environment: `PULLONCE_NATS_URL`, `PULLONCE_ACK_WAIT`, `PULLONCE_HOME`, `PULLONCE_STORE` (see `pullonce.config`);
`PULLONCE_UNPACK_WORKERS` layers at work at a time (default: the cores of this machine), `PULLONCE_LAYER_MAX_BYTES` and
`PULLONCE_LAYER_MAX_ENTRIES` what one layer may expand to, `PULLONCE_LAYER_MAX_RATIO` how many bytes for each one stored;
`PULLONCE_ZSTD_WINDOW` bytes of memory that a layer's compression may ask for; `PULLONCE_UNPACK_PATIENCE` seconds without any
progress after which a worker is ended.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pullonce.bus.metered import MeteredBus
from pullonce.bus.nats.bus import connect
from pullonce.config import BusSettings, StoreSettings, number
from pullonce.process.runtime import answer_pings, run, version
from pullonce.store.content import ContentStore
from pullonce.store.snapshots import Snapshots
from pullonce.telemetry.http import telling
from pullonce.telemetry.metrics import Meter
from pullonce.telemetry.spanning import spanning
from pullonce.worker.measured import WorkMeter
from pullonce.worker.one_store import OneStore
from pullonce.worker.present import Present
from pullonce.worker.traced import traced
from pullonce.worker.worker import Handler, Worker
from schemas.orders import Order, UnpackLayer
from services.unpacker.progress import on_disk
from services.unpacker.service import unpacking
from services.unpacker.work.messages import WorkLimits

_ORDERS = 1024
"""Layers that may wait here at a time: each costs a task, and none may keep the one from coming that it waits for."""


@dataclass(frozen=True, slots=True)
class UnpackerSettings:
    """How an unpacker works."""

    bus: BusSettings
    store: StoreSettings
    workers: int
    limits: WorkLimits

    @staticmethod
    def from_env(environ: Mapping[str, str] = os.environ) -> "UnpackerSettings":
        """Read the environment; raises SettingInvalid."""
        cores = len(os.sched_getaffinity(0))
        default = WorkLimits()
        return UnpackerSettings(
            bus=BusSettings.from_env("unpacker", environ),
            store=StoreSettings.from_env(environ),
            workers=int(number(environ, "PULLONCE_UNPACK_WORKERS", cores, low=1, high=256)),
            limits=WorkLimits(
                size=int(number(environ, "PULLONCE_LAYER_MAX_BYTES", default.size, low=1, high=1 << 50)),
                ratio=int(number(environ, "PULLONCE_LAYER_MAX_RATIO", default.ratio, low=1, high=1 << 40)),
                entries=int(number(environ, "PULLONCE_LAYER_MAX_ENTRIES", default.entries, low=1, high=1 << 30)),
                window=int(number(environ, "PULLONCE_ZSTD_WINDOW", default.window, low=1 << 20, high=1 << 31)),
                patience=number(environ, "PULLONCE_UNPACK_PATIENCE", default.patience, low=1, high=86_400),
            ),
        )


async def main() -> None:
    settings = UnpackerSettings.from_env()
    store, root = settings.store.name, settings.store.root
    meter = Meter("unpacker", store, version())
    measured = WorkMeter(meter)
    async with (
        telling(meter) as health,
        spanning("unpacker", store, version()) as spans,
        connect(settings.bus) as connection,
    ):
        bus = MeteredBus(connection, meter)
        present = Present(bus.signals, "unpacker", store, on_disk(Snapshots(root), store))
        async with unpacking(store, root, present.signals, workers=settings.workers, limits=settings.limits) as unpacker:
            one = OneStore(bus.signals, store, lambda: ContentStore(root).incarnation)
            await one.begin()
            await present.open()
            await answer_pings(bus.signals, "unpacker", store, lambda: {"workers": settings.workers, **health.details()})
            health.ready = lambda: connection.signals.connected
            unpack = measured.measured(traced(spans, unpacker.unpack_layer))
            table: dict[type[Order], tuple[Handler, int]] = {UnpackLayer: (unpack, _ORDERS)}
            give_up = measured.giving_up(unpacker.give_up)
            worker = Worker(bus, store, table, give_up=give_up, retrying=unpacker.retrying, watching=present)
            await one.guarding(worker.run())


if __name__ == "__main__":
    run(main, "unpacker")

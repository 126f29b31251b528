"""`python -m services.unpacker`: its settings and its wiring.

Environment: see `services.unpacker.settings`.
"""

from pullonce.bus.metered import MeteredBus
from pullonce.bus.nats.bus import connect
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
from services.unpacker.settings import UnpackerSettings

_ORDERS = 1024
"""Layers that may wait here at a time: each costs a task, and none may keep the one from coming that it waits for."""


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

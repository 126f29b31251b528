"""`python -m services.fetcher`: its settings and its wiring. Environment: see `services.fetcher.settings`."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from pullonce.bus.metered import MeteredBus
from pullonce.bus.nats.bus import connect as connect_bus
from pullonce.process.runtime import answer_pings, run, version
from pullonce.store.content import open_store
from pullonce.telemetry.http import telling
from pullonce.telemetry.metrics import Meter
from pullonce.telemetry.spanning import spanning
from pullonce.worker.measured import WorkMeter
from pullonce.worker.one_store import OneStore
from pullonce.worker.present import Present
from pullonce.worker.traced import traced
from pullonce.worker.worker import Worker
from schemas.events import StoreOpened
from schemas.orders import FetchBlob, RecordImage, ResolveReference
from services.fetcher.auth.credentials import Credentials
from services.fetcher.handlers import Handlers
from services.fetcher.progress import on_disk
from services.fetcher.remote.registry import connect as connect_registry
from services.fetcher.settings import FetcherSettings

_DOCUMENTS_AT_ONCE = 16
"""References resolved, and images listed, at a time: small requests that mostly wait."""
_ORDERS_A_TRANSFER = 4
"""Blobs in hand for each that may come in at a time: most of them are small, and wait for the disk rather than for bytes. More
would be kept from other fetchers."""


async def main() -> None:
    settings = FetcherSettings.from_env()
    store = settings.store.name
    content = open_store(settings.store.root, sync=settings.sync)
    credentials = Credentials(settings.credentials, settings.configs)
    orders = _ORDERS_A_TRANSFER * settings.fetches
    # A thread for each blob that may be in one: none shall wait for its bytes to be written while others wait for a sync. Syncs
    # that are asked for together are done together.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(orders + _DOCUMENTS_AT_ONCE, "disk"))
    meter = Meter("fetcher", store, version())
    measured = WorkMeter(meter)
    async with (
        telling(meter) as health,
        spanning("fetcher", store, version()) as spans,
        connect_bus(settings.bus) as connection,
        connect_registry(settings.registry, credentials, version()) as registry,
    ):
        bus = MeteredBus(connection, meter)
        present = Present(bus.signals, "fetcher", store, on_disk(content, store))
        handlers = Handlers(
            registry,
            content,
            present.signals,
            store=store,
            transfers=settings.fetches,
            at_once=settings.fetches_per_registry,
        )
        worker = Worker(
            bus,
            store,
            {
                ResolveReference: (measured.measured(traced(spans, handlers.resolve_reference)), _DOCUMENTS_AT_ONCE),
                FetchBlob: (measured.measured(traced(spans, handlers.fetch_blob)), orders),
                RecordImage: (measured.measured(traced(spans, handlers.record_image)), _DOCUMENTS_AT_ONCE),
            },
            give_up=measured.giving_up(handlers.give_up),
            retrying=present.retrying,
            watching=present,
        )
        one = OneStore(bus.signals, store, lambda: content.incarnation)
        await one.begin()
        await bus.log.append(StoreOpened(store=store, incarnation=content.incarnation))
        await present.open()
        await answer_pings(bus.signals, "fetcher", store, health.details)
        health.ready = lambda: connection.signals.connected
        await one.guarding(worker.run())


if __name__ == "__main__":
    run(main, "fetcher")

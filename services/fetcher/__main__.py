"""`python -m services.fetcher`: its settings and its wiring. Environment: see `services.fetcher.settings`."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from pullonce.bus.metered import MeteredBus
from pullonce.bus.nats.bus import connect as connect_bus
from pullonce.process.runtime import answer_pings, run, version
from pullonce.store.content import open_store
from pullonce.store.open_files import open_as_many_as_may_be
from pullonce.store.proofs import Proofs
from pullonce.telemetry.http import telling
from pullonce.telemetry.metrics import Meter
from pullonce.telemetry.spanning import spanning
from pullonce.worker.measured import WorkMeter
from pullonce.worker.one_store import OneStore
from pullonce.worker.present import Present
from pullonce.worker.traced import traced
from pullonce.worker.worker import Worker, attempts_for
from schemas.events import StoreOpened
from schemas.orders import FetchBlob, RecordImage, ResolveReference
from schemas.subjects import registry_subject
from services.fetcher.access import AccessRules
from services.fetcher.alone import Alone
from services.fetcher.answering import Answerer
from services.fetcher.auth.credentials import Credentials
from services.fetcher.handlers import Handlers
from services.fetcher.progress import on_disk
from services.fetcher.pushing.push import Pusher
from services.fetcher.pushing.records import UploadRecords
from services.fetcher.pushing.service import Pushes
from services.fetcher.remote.registry import connect as connect_registry
from services.fetcher.settings import FetcherSettings
from services.fetcher.slots import Slots
from services.fetcher.telling import clean_logs

_IN_HAND = 1024
"""Orders of one kind that are taken from the queue at a time. Most of them wait for a slot of their registry, which costs
nothing; fewer would let one registry that says nothing keep all others, and what is there already, waiting behind it."""
_THREADS_A_TRANSFER = 4
"""None shall wait for its bytes to be written while others wait for a sync. Syncs that are asked for together are done
together."""


async def main() -> None:
    settings = FetcherSettings.from_env()
    open_as_many_as_may_be()
    store = settings.store.name
    content = open_store(settings.store.root, sync=settings.sync, group=settings.store.group)
    credentials = Credentials(settings.credentials, settings.configs, brought=content.layout.credentials)
    credentials.secrets.keep(*settings.registry.passwords)
    clean_logs(credentials.secrets)
    threads = _THREADS_A_TRANSFER * settings.bounds.fetches + settings.bounds.looks
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads, "disk"))
    meter = Meter("fetcher", store, version())
    measured = WorkMeter(meter)
    async with (
        telling(meter) as health,
        spanning("fetcher", store, version()) as spans,
        connect_bus(settings.bus) as connection,
        connect_registry(settings.registry, credentials, version()) as registry,
        AsyncExitStack() as stack,
    ):
        bus = MeteredBus(connection, meter)
        present = Present(bus.signals, "fetcher", store, on_disk(content, store))
        proofs = Proofs(settings.store.root, lifetime=settings.access.lifetime)
        access = AccessRules(registry, credentials, proofs, settings.access)
        handlers = Handlers(registry, content, present.signals, access=access, store=store, bounds=settings.bounds)
        attempts = attempts_for(settings.retry)
        worker = Worker(
            bus,
            store,
            {
                ResolveReference: (measured.measured(traced(spans, handlers.resolve_reference)), _IN_HAND),
                FetchBlob: (measured.measured(traced(spans, handlers.fetch_blob)), _IN_HAND),
                RecordImage: (measured.measured(traced(spans, handlers.record_image)), _IN_HAND),
            },
            give_up=measured.giving_up(handlers.give_up),
            attempts=attempts,
            retrying=present.retrying,
            watching=present,
        )
        records, slots = UploadRecords(content.layout.uploads), Slots(settings.bounds.fetches_per_registry)
        pusher = Pusher(registry, content, records, slots, attempts)
        one = OneStore(bus.signals, store, lambda: content.incarnation)
        await one.begin()
        await bus.log.append(StoreOpened(store=store, incarnation=content.incarnation))
        await present.open()
        rate = settings.bounds.slow_rate
        alone = Alone(registry, content, handlers.transfers, present.signals, store=store, slow_rate=rate)
        stack.push_async_callback(alone.close)
        answerer = Answerer(registry, content, access, bounds=settings.bounds, alone=alone)
        await bus.signals.answer(registry_subject(store), answerer.answer, queue="fetcher")
        async with Pushes(bus.signals, store, pusher):
            await answer_pings(bus.signals, "fetcher", store, health.details)
            health.ready = lambda: connection.signals.connected
            await one.guarding(worker.run())


if __name__ == "__main__":
    run(main, "fetcher")

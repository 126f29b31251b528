"""The bus on a NATS server with JetStream: one connection, all ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from pullonce.bus.nats.claims import NatsClaims
from pullonce.bus.nats.greeting import Access
from pullonce.bus.nats.link import open_link
from pullonce.bus.nats.log import NatsLog
from pullonce.bus.nats.orders import NatsOrders
from pullonce.bus.nats.setup import check_server, prepare
from pullonce.bus.nats.signals import NatsSignals
from pullonce.config import BusSettings
from pullonce.errors import BusUnavailable


@dataclass(frozen=True, slots=True)
class NatsBus:
    """`bus.Bus` on one connection."""

    log: NatsLog
    orders: NatsOrders
    claims: NatsClaims
    signals: NatsSignals


@asynccontextmanager
async def connect(
    settings: BusSettings, *, patience: float | None = None, find: Callable[[], str] | None = None
) -> AsyncIterator[NatsBus]:
    """Connect, check that the server is able, and make whatever stream is missing.

    Args:
        find: says where the server is while it is away, if it may come back at another address; empty: nowhere now.
        patience: seconds after which a client gives up; None, for services: never, said once in the log.

    Raises:
        BusUnavailable: nobody answered within `patience`.
        BusUnsuitable: the server is too old, has no JetStream, refuses our credentials, or holds streams that cannot serve.
    """
    link = await open_link(settings, patience=patience, find=find)
    try:
        try:
            async with asyncio.timeout(patience):
                await check_server(link)
                await prepare(link, settings)
                link.on_missing = partial(prepare, link, settings)
        except TimeoutError:
            raise BusUnavailable(f"the NATS server at {settings.shown} answers, but its JetStream is not ready") from None
        access = Access(creds=settings.creds, ca=settings.ca, cert=settings.cert, key=settings.key, inbox=settings.inbox)
        yield NatsBus(NatsLog(link, settings.url, access), NatsOrders(link, settings), NatsClaims(link), NatsSignals(link))
    finally:
        await link.close()

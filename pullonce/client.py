"""The public face for Python programs.

    async with pullonce.client.connect() as client:
        image = await client.pull("redis:latest", timeout=300)
        print(image.image_id, image.sharing.fetched)

Any number of pulls may run at once over one client; pulls of one image share a subscription and are answered by one event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TypedDict, Unpack

import msgspec

from pullonce import environment
from pullonce.bus.nats.bus import connect as connect_bus
from pullonce.bus.ports import Bus, Recorded
from pullonce.config import BusSettings
from pullonce.config import home as configured_home
from pullonce.errors import LedgerRefused, PullFailed, ServicesMissing
from pullonce.process import discovery
from pullonce.pulling.client_flight import Ending
from pullonce.pulling.flights import ClientFlights
from pullonce.pulling.identity import identify_request
from pullonce.pulling.layers import LayerUpdate, LayerView
from pullonce.pulling.listening import PullUpdate
from pullonce.pulling.timings import Timings
from pullonce.pushing import push
from schemas import events, ledger, progress, subjects
from schemas.malformed import Malformed
from schemas.push import PushImage, PushStatus
from schemas.status import Pong, Status, decode_pong, decode_status, with_workers

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds to wait for the bus at the start."""
HOW_FAR = 0.2
"""Seconds that workers have to say what they have in hand."""


class PullOptions(TypedDict, total=False):
    """What a pull may ask for beyond the reference; see `schemas.events.PullRequested`."""

    store: str
    platform: str
    credential: str
    policy: events.Policy
    unpack: bool
    requester: str
    door: str


class PushOptions(TypedDict, total=False):
    """What a push may ask for beyond the reference and the target; see `schemas.push.PushImage`."""

    store: str
    platform: str
    all_platforms: bool
    nondistributable: bool
    credential: str
    requester: str


@asynccontextmanager
async def connect(
    url: str = "", *, name: str = "pullonce client", patience: float = PATIENCE, supervised: bool = False,
    say: Callable[[str], None] | None = None, environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[Client]:  # fmt: skip
    """Connect to the bus for as long as the block lasts.

    Args:
        url: `nats://…` or `tls://…`, credentials included; empty: `PULLONCE_NATS_URL`, else the `pullonce up` of this home,
            also when that is started again and listens at another port.
        name: what the server's monitoring calls the connection.
        supervised: whoever serves this bus starts anew what dies, as what serves a home does: where nobody answers, pulls wait
            instead of failing by `ServicesMissing`.
        say: told in a line when something holds pulls up: a bus that is away, a part that is missing. Default: the log.
        environ: where settings are read.

    Raises:
        ServicesMissing: no address is given or configured, and nothing serves this home.
        BusUnavailable: nobody answers within `patience` seconds.
        BusUnsuitable: the server is too old or lacks JetStream.
    """
    home = str(configured_home(environ))
    address = url or environment.nats_url(environ) or discovery.bus_address(home)
    settings = BusSettings.from_env(name, {**environ, "PULLONCE_NATS_URL": address})
    # Only what serves a home can come back at another address, and starts anew what dies.
    find = None if url or environment.nats_url(environ) else partial(_find, home)
    async with connect_bus(settings, patience=patience, find=find) as bus:
        times = Timings(**environment.client_times(environ))
        flights = ClientFlights(
            bus, url=settings.shown, supervised=supervised or find is not None, say=say or log.info, times=times
        )
        try:
            yield Client(bus, flights)
        finally:
            await flights.close()


def _find(home: str) -> str:
    found = discovery.served(home)
    return found.url if found else ""


class Client:
    """A connection to pullonce. Made by `connect`."""

    def __init__(self, bus: Bus, flights: ClientFlights) -> None:
        self._bus = bus
        self._flights = flights

    async def pull(
        self,
        reference: str,
        *,
        timeout: float | None = None,
        progress: Callable[[PullUpdate], None] | None = None,
        layers: Callable[[LayerUpdate], None] | None = None,
        **options: Unpack[PullOptions],
    ) -> events.PullCompleted:
        """Ask for an image and wait until it is there.

        Joins the active flight of the same request, whoever asked. Cancelling withdraws the request; the work goes on
        while anyone else waits. A bus that breaks, stands still or is started anew is nothing but a delay.

        Args:
            timeout: seconds after which this requester gives up; None waits for as long as it takes, unless what is needed
                stays away (`PULLONCE_AWAY`, 300 s, for what was there before).
            progress: called with each event and progress message that concerns the image, in the event loop.
            layers: called with where a layer stands, once for each when they are known and again whenever that changes.

        Returns:
            The ending: `image_id`, `digest`, `chain_id` (the snapshot to mount), `sharing`.

        Raises:
            ReferenceInvalid: `reference` is no image reference.
            PullFailed: the pull ended badly; `code` says how.
            PullTimeout: `timeout` passed.
            ServicesMissing: nobody is there who does the work; the message names what is missing.
            BusUnavailable: the bus went away and did not come back.
        """
        options.setdefault("door", "client")
        request = events.PullRequested(reference=reference, **options)
        ending = await self.ending(request, _telling(progress, layers, unpack=request.unpack), timeout=timeout)
        if isinstance(ending, events.PullFailed):
            raise PullFailed(ending.message, code=ending.code)
        return ending

    async def ending(
        self,
        request: events.PullRequested,
        progress: Callable[[PullUpdate], None] | None = None,
        *,
        timeout: float | None = None,
    ) -> Ending:
        """Append a request and wait for the event that ends its flight, good or bad. Otherwise as `pull`.

        Raises:
            ReferenceInvalid: its reference is no image reference.
            PullTimeout, ServicesMissing, BusUnavailable: as `pull`.
        """
        identity = identify_request(request)
        # The normalised form is stored, so that every reader sees the one spelling.
        normal = msgspec.structs.replace(request, reference=identity.reference, platform=identity.platform)
        return await self._flights.join(normal, identity, timeout=timeout, tell=progress)

    async def push(
        self, reference: str, target: str = "", *, told: Callable[[PushStatus], None] = lambda status: None,
        **options: Unpack[PushOptions],
    ) -> PushStatus:  # fmt: skip
        """Push an image of a store to a registry; the fetchers of the store do it, with the logins that they have.

        Args:
            target: where to; empty: what the reference itself names.
            told: called with each change of how it stands.

        Raises:
            PushFailed: it cannot be done; `code` says why.
            ServicesMissing: no fetcher answers.
        """
        wanted = PushImage(id=secrets.token_hex(16), reference=reference, target=target, **options)
        return await push(self._bus.signals, wanted, told)

    async def watch(self, apply: Callable[[Recorded], None], *, start: int = 1, idle: Callable[[], None] | None = None) -> None:
        """Hand every stored event from sequence `start` on to `apply`, in order, for ever; see `bus.Log.follow`."""
        await self._bus.log.follow(apply, start=start, idle=idle)

    async def last_sequence(self) -> int:
        """Sequence of the last stored event; 0 where there is none."""
        return await self._bus.log.last_sequence()

    async def status(self, timeout: float = 1.0) -> Status:
        """What is in flight, as one coordinator sees it, and what the workers say of what it waits for.

        Raises:
            ServicesMissing: no coordinator answers within `timeout` seconds.
        """
        try:
            said = decode_status(await self._bus.signals.request(subjects.STATUS_SUBJECT, b"", timeout=timeout))
        except TimeoutError:
            raise ServicesMissing("no coordinator answers") from None
        return with_workers(said, await self._under_way({flight.store for flight in said.flights if flight.waiting}))

    async def _under_way(self, stores: set[str]) -> list[progress.ProgressMessage]:
        """All that the workers of some stores have in hand."""
        words: list[progress.ProgressMessage] = []

        def take(body: bytes) -> None:
            with contextlib.suppress(Malformed):
                words.extend(progress.decode_now(body).works)

        asked = (subjects.progress_now_subject(store) for store in stores)
        await asyncio.gather(*(self._bus.signals.gather(each, b"", timeout=HOW_FAR, take=take) for each in asked))
        return words

    async def ask(self, question: ledger.Question, timeout: float = 60.0) -> ledger.Answer:
        """Ask the ledger: what happened, why it took so long, what sharing saved (`schemas.ledger`).

        Raises:
            ServicesMissing: no ledger answers within `timeout` seconds.
            LedgerRefused: the question has no answer; `code` says why.
        """
        try:
            body = await self._bus.signals.request(subjects.LEDGER_SUBJECT, ledger.encode(question), timeout=timeout)
        except TimeoutError as exc:
            raise ServicesMissing(f"no ledger answers ({exc}); `pullonce up` runs one unless told not to") from None
        answer = ledger.decode_answer(body)
        if isinstance(answer, ledger.Error):
            raise LedgerRefused(answer.message, code=answer.code)
        return answer

    async def ping(self, timeout: float = 1.0, *, enough: Callable[[list[Pong]], bool] | None = None) -> list[Pong]:
        """Every process that says within `timeout` seconds that it is there; sooner where `enough` is content with some."""
        pongs: list[Pong] = []
        for share in (0.1, 0.9):
            for body in await self._bus.signals.gather(subjects.PING_SUBJECT, b"", timeout=timeout * share):
                with contextlib.suppress(Malformed):
                    pongs.append(decode_pong(body))
            if enough and enough(pongs):
                break
        return list({(pong.host, pong.pid, pong.service, pong.store): pong for pong in pongs}.values())


def _telling(
    progress: Callable[[PullUpdate], None] | None, layers: Callable[[LayerUpdate], None] | None, *, unpack: bool
) -> Callable[[PullUpdate], None] | None:
    """Whom to tell of progress: of the messages, of what they come to, of both or of neither."""
    if layers is None:
        return progress
    view = LayerView(unpack=unpack)

    def tell(update: PullUpdate) -> None:
        if progress is not None:
            progress(update)
        now = time.monotonic()
        view.take(msgspec.to_builtins(update), now)
        for layer in view.news(now):
            layers(layer)

    return tell

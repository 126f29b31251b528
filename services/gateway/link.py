"""The bus, which may be away: the listeners answer from the disk until it is there, and again when it has gone."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from pullonce.bus.nats.bus import NatsBus, connect
from pullonce.bus.ports import Signals
from pullonce.client import Client
from pullonce.client import connect as connect_client
from pullonce.config import BusSettings
from pullonce.errors import PullonceError
from pullonce.process.runtime import answer_pings

log = logging.getLogger(__name__)

_AGAIN = 1.0
"""Seconds between two attempts to reach a bus that was never there."""

Hear = Callable[[str, bytes], None]


class BusAway(PullonceError):
    """The bus does not answer; nothing can be pulled until it does."""


class BusLink:
    """The gateway's connection to the bus.

    Args:
        details: what the answer to a ping tells of the gateway.
    """

    def __init__(
        self, settings: BusSettings, store: str, details: Callable[[], Mapping[str, str | int | float]] = dict
    ) -> None:
        self.store = store
        """The store that the listeners serve."""
        self.came = asyncio.Event()
        """Set once the bus was there for the first time."""
        self._settings = settings
        self._details = details
        self._bus: NatsBus | None = None
        self._client: Client | None = None
        self._heard: list[tuple[str, Hear]] = []

    @property
    def connected(self) -> bool:
        """Whether the bus answers now."""
        return self._bus is not None and self._bus.signals.connected

    @property
    def client(self) -> Client:
        """For pulls; a pull that is under way outlives an absence of the bus.

        Raises:
            BusAway: it does not answer now.
        """
        if self._client is None or not self.connected:
            raise BusAway("the bus of pullonce does not answer; see `pullonce ping`")
        return self._client

    @property
    def signals(self) -> Signals:
        """For questions; raises BusAway where it does not answer now."""
        if self._bus is None or not self.connected:
            raise BusAway("the bus of pullonce does not answer; see `pullonce ping`")
        return self._bus.signals

    def hear(self, subject: str, receive: Hear) -> None:
        """Have messages of a subject handed on whenever the bus is there. Call it before `run`."""
        self._heard.append((subject, receive))

    async def run(self) -> None:
        """Be connected, as long and as often as that is possible. For ever."""
        said = False
        while True:
            try:
                async with (
                    connect(self._settings) as bus,
                    connect_client(self._settings.url, name=self._settings.name, supervised=True) as client,
                ):
                    self._bus, self._client, said = bus, client, False
                    for subject, receive in self._heard:
                        await bus.signals.subscribe(subject, receive)
                    await answer_pings(bus.signals, "gateway", self.store, self._details)
                    self.came.set()
                    log.info("the bus is there", extra={"bus": self._settings.shown})
                    await asyncio.Event().wait()
            except PullonceError as exc:
                if not said:
                    log.warning("the bus is away, so nothing new can be pulled: %s", exc)
                said = True
            finally:
                self._bus = self._client = None
            await asyncio.sleep(_AGAIN)

"""The pulls of one asyncio client: a `Conversation` for each flight, however many of its requests wait for it.

One subscription a flight, one timer, and no task while nothing happens: ten thousand requests wait like one.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from pullonce.bus.ports import Bus
from pullonce.pulling.client_flight import ClientFlight, Ending, FlightKey, Surroundings
from pullonce.pulling.identity import Identity
from pullonce.pulling.listening import Listener, PullUpdate
from pullonce.pulling.timings import Timings
from schemas import events

LEAVE = 2.0
"""Seconds that withdrawing requests may hold up the end of a client."""


class ClientFlights:
    """The flights that a client's requests wait for.

    Args:
        url: of the bus, without secrets, for messages.
        supervised: whoever serves it starts anew what dies.
        say: told in a line when something holds a pull up.
    """

    def __init__(
        self, bus: Bus, *, url: str = "", supervised: bool = False, say: Callable[[str], None] = lambda line: None,
        times: Timings | None = None,
    ) -> None:  # fmt: skip
        self._around = Surroundings(bus, url, disturbed=supervised, say=say, times=times or Timings())
        self._me, self._asked = uuid.uuid4().hex, 0
        self._flights: dict[FlightKey, ClientFlight] = {}
        bus.signals.on_disconnect(self._on_disconnect)
        bus.signals.on_reconnect(self._on_reconnect)

    async def close(self) -> None:
        """Whoever still waits hears that the client was closed; what is being withdrawn has a moment for that."""
        for flight in list(self._flights.values()):
            flight.abandon()
        if self._around.background:
            await asyncio.wait(self._around.background, timeout=LEAVE)
        for task in self._around.background:
            task.cancel()
        for flight in list(self._flights.values()):
            flight.stop()

    async def join(
        self, request: events.PullRequested, identity: Identity, *, timeout: float | None = None,
        tell: Callable[[PullUpdate], None] | None = None,
    ) -> Ending:  # fmt: skip
        """Subscribe, append, and wait for the ending that answers the request. Cancelled, it withdraws the request.

        Raises:
            PullTimeout: `timeout` seconds have passed.
            ServicesMissing: nobody does the work.
            BusUnavailable: the bus went away and did not come back.
            BusClosed: the client was closed.
        """
        now = asyncio.get_running_loop().time()
        key = (request.store, identity.reference, identity.flight)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = ClientFlight(self._around, key, request.unpack, self._forget)
        flight.users += 1
        listener = Listener(self._around.bus, key, tell) if tell else None
        try:
            if listener is not None:
                await listener.open()
                flight.listeners.add(listener)
            return await flight.ask(now, f"{self._me}.{self._next()}", request, timeout, listener)
        finally:
            flight.users -= 1
            if listener is not None:
                flight.listeners.discard(listener)
                self._around.spawn(listener.stop())
            self._forget(flight)

    def _forget(self, flight: ClientFlight) -> None:
        """Nobody waits for a flight any more, unless somebody does."""
        if not flight.users and flight.settled and self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
            flight.stop()
            self._around.spawn(flight.unsubscribe())

    def _next(self) -> int:
        self._asked += 1
        return self._asked

    def _on_disconnect(self) -> None:
        self._around.disturbed = True
        for flight in list(self._flights.values()):
            flight.lost()

    def _on_reconnect(self) -> None:
        for flight in list(self._flights.values()):
            flight.opened()

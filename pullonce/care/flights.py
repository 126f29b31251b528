"""Which flights are in flight, as one coordinator says; and so which of the uses on the disk count."""

import time

from pullonce.bus.ports import Signals
from pullonce.errors import ServicesMissing
from pullonce.store.uses import Use
from schemas.status import Status, decode_status
from schemas.subjects import STATUS_SUBJECT

_PATIENCE = 5.0
_LAG = 3600.0
"""Seconds after which a use is no longer taken for that of a flight which the coordinator has not read of yet: the log it
speaks of must be another's."""


class ActiveFlights:
    """The flights of one store at a log position. What came later is taken to be in flight."""

    def __init__(self, status: Status, store: str) -> None:
        self.position = status.position
        """The log position at which this was true."""
        self._flights = {(each.flight, each.opened) for each in status.flights if each.store == store}

    def has(self, use: Use) -> bool:
        """Whether the flight of a use may still be in flight. Wrong only in saying so too long."""
        if use.opened > self.position:
            return time.time() - use.at < _LAG
        return (use.flight, use.opened) in self._flights


async def ask(signals: Signals, store: str) -> ActiveFlights:
    """Ask any coordinator.

    Raises:
        ServicesMissing: none answers, so nobody knows what is in flight.
    """
    try:
        answer = await signals.request(STATUS_SUBJECT, b"", timeout=_PATIENCE)
    except TimeoutError:
        raise ServicesMissing("no coordinator answers, so nobody knows what is being pulled") from None
    return ActiveFlights(decode_status(answer), store)

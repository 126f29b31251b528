"""What a coordinator answers when asked how things stand."""

from __future__ import annotations

from schemas.status import FlightStatus, Status, Waiting, encode
from services.coordinator.board import Board
from services.coordinator.flight import Flight
from services.coordinator.key import Key
from services.coordinator.waits import Waits


def describe(board: Board) -> bytes:
    """The flights in flight and what each waits for, as JSON of `schemas.status.Status`."""
    flights = tuple(_flight(flight, board.waits) for flight in board.flights.values())
    return encode(Status(position=board.position, flights=flights))


def _flight(flight: Flight, waits: Waits) -> FlightStatus:
    return FlightStatus(
        reference=flight.reference,
        flight=flight.name,
        opened=flight.opened,
        store=flight.store,
        platform=flight.request.platform,
        requests=flight.requests,
        state=flight.state.value,
        waiting=tuple(_waiting(name, key) for name in sorted(flight.missing) if (key := waits.key(name)) is not None),
    )


def _waiting(name: str, key: Key) -> Waiting:
    return Waiting(key=name, state="ordered" if key.ordered else "wanted", holder=key.holder)

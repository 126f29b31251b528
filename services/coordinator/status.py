"""What a coordinator answers when asked how things stand."""

from __future__ import annotations

from schemas.status import FlightStatus, Status, Waiting, encode
from services.coordinator.board import Board, Key, waiting
from services.coordinator.flight import Flight


def describe(board: Board) -> bytes:
    """The flights in the air and what each waits for, as JSON of `schemas.status.Status`."""
    flights = tuple(_flight(flight, missing) for flight, missing in waiting(board))
    return encode(Status(position=board.position, flights=flights))


def _flight(flight: Flight, missing: list[tuple[str, Key]]) -> FlightStatus:
    return FlightStatus(
        reference=flight.reference,
        flight=flight.name,
        opened=flight.opened,
        store=flight.store,
        platform=flight.platform,
        requests=flight.requests,
        state=flight.state.value,
        waiting=tuple(
            Waiting(key=key, state="ordered" if state.ordered else "wanted", holder=state.holder) for key, state in missing
        ),
    )

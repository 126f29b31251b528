"""The coordinator's own metrics: what its board holds. All coordinators fold the same log, so any one will do."""

from pullonce.telemetry.metrics import Meter
from services.coordinator.handlers import Coordinator


def show(coordinator: Coordinator, meter: Meter) -> None:
    """Read the board whenever somebody asks for the metrics."""
    meter.watch("log_position", "Position of the last folded event.", lambda: coordinator.board.position)
    meter.watch("flights_in_air", "Flights that have not ended.", lambda: len(coordinator.board.flights))
    meter.watch(
        "requests_in_air",
        "Requests that wait for one of them.",
        lambda: sum(flight.requests for flight in coordinator.board.flights.values()),
    )
    meter.watch(
        "keys_known", "Blobs, layers and steps of flights that the board remembers.", lambda: len(coordinator.board.waits)
    )

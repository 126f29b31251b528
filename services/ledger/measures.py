"""The ledger's metrics: what pulls came to, counted as they end. Counts begin anew with the process, as Prometheus expects."""

from __future__ import annotations

import logging
from functools import partial

import duckdb

from pullonce.telemetry.metrics import FewLabels, Meter
from services.ledger.answers.queries import Row, rows
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.keeper import Keeper

log = logging.getLogger(__name__)

_ENDED = "SELECT * FROM ended_flights WHERE ended > ? AND ended <= ?"
_SHARED = ("fetched", "reused", "waited")
_OUTCOMES = ("completed", "failed")


class Measures:
    """Counts what has ended since the process began."""

    def __init__(self, file: LedgerFile, keeper: Keeper, meter: Meter) -> None:
        self._file = file
        self._keeper = keeper
        self._counted = keeper.position
        self._registries = FewLabels()
        self._requests = meter.counter("requests_total", "Requests that were answered.", ("outcome",))
        self._doors = FewLabels()
        self._by_door = meter.counter(
            "door_requests_total", "Requests that were answered, by the door they came by.", ("door",)
        )
        self._flights = meter.counter("flights_total", "Flights that ended.", ("registry", "outcome"))
        self._took = meter.histogram("flight_duration_seconds", "From the opening of a flight to its end.", ("outcome",))
        self._release = meter.histogram("release_duration_seconds", "From the last key's settling to the ending.")
        self._bytes = meter.counter("flight_bytes_total", "Bytes that flights needed, by where they came from.", ("source",))
        self._saved = meter.counter("saved_bytes_total", "Bytes that were asked for and not fetched.")
        self._begin()
        meter.watch("ledger_position", "Position of the last folded event.", lambda: keeper.position)
        meter.watch("ledger_behind", "Events that were heard of and are not folded yet.", lambda: keeper.behind)
        meter.watch("ledger_folds", "Batches that were folded since the start.", lambda: keeper.folds)

    def _begin(self) -> None:
        """Begin each count whose labels are known at nothing: to Prometheus, one that begins at one has not increased."""
        for outcome in _OUTCOMES:
            self._requests.labels(outcome)
            self._took.labels(outcome)
        for source in _SHARED:
            self._bytes.labels(source)

    async def run(self) -> None:
        """Count after each fold. For ever."""
        while True:
            await self._keeper.folded()
            if self._keeper.position < self._counted:
                self._counted = self._keeper.position  # another log, another ledger
            since, until = self._counted, self._keeper.position
            try:
                ended = await self._file.read(partial(_ended, since, until))
            except duckdb.Error as exc:
                log.warning("endings could not be counted now: %s", exc)
                continue
            self._counted = until
            for row in ended:
                self._count(row)

    def _count(self, row: Row) -> None:
        outcome = row["outcome"]
        self._requests.labels(outcome).inc(row["requests"])
        for door, requests in (row["doors"] or {}).items():
            self._by_door.labels(self._doors.of(door)).inc(requests)
        self._flights.labels(self._registries.of(row["registry"]), outcome).inc()
        self._took.labels(outcome).observe(row["seconds"] or 0.0)
        if row["release"] is not None:
            self._release.observe(row["release"])
        for source in _SHARED:
            self._bytes.labels(source).inc(row[f"{source}_bytes"] or 0)
        if outcome == "completed":
            self._saved.inc(max(0, row["requests"] * (row["size"] or 0) - (row["fetched_bytes"] or 0)))


def _ended(since: int, until: int, reader: duckdb.DuckDBPyConnection) -> list[Row]:
    return rows(reader, _ENDED, since, until)

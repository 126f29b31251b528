"""What is in flight, as the page shows it: flights, the pieces of work they share, and what has just ended.

The tables say which work each flight needs and what of it is done; progress passes by beside the log and is laid over that.
A piece of work stands here once, however many flights wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import duckdb
from msgspec import Struct

from schemas.ledger import Pull
from services.ledger.answers.live import Live, LiveProgress, Sort, flight_name
from services.ledger.answers.queries import Row, pull, rows, seconds_of
from services.ledger.fold.statements import DOORS

ENDED_SHOWN = 12
"""Endings that are shown, the newest first."""

_FLIGHTS = f"""
SELECT flight, opened, min(opened_at) AS opened_at, min(store) AS store, min(reference) AS reference,
    min(platform) AS platform, count(*) AS requests, count(cancelled_at) AS cancelled,
    list_slice(list_sort(list_distinct(list(requester) FILTER (requester <> ''))), 1, 10) AS requesters,
    {DOORS} AS doors
FROM waiting GROUP BY flight, opened ORDER BY opened
"""

# What was settled before the oldest flight was opened cannot be what one of them waits for: only the end of each table is
# read. Of several resolutions of a flight the last one counts.
_LAYERS = """
WITH oldest AS (SELECT coalesce(min(opened), 9223372036854775807) AS mark FROM waiting),
air AS (SELECT DISTINCT flight, opened FROM waiting),
resolved AS (
    SELECT flight, opened, max(sequence) AS mark FROM resolutions SEMI JOIN air USING (flight, opened)
    WHERE sequence > (SELECT mark FROM oldest) GROUP BY ALL
),
need AS (
    SELECT layer.flight, layer.opened, mark, store, position, digest, size, chain_id, fetched, unpacked
    FROM flight_layers AS layer JOIN resolved ON layer.sequence = mark
        AND layer.flight = resolved.flight AND layer.opened = resolved.opened
),
blob AS (
    SELECT store, digest, max(sequence) AS mark FROM blobs WHERE sequence > (SELECT mark FROM oldest) GROUP BY ALL
),
snapshot AS (
    SELECT store, chain_id, max(sequence) AS mark FROM layers WHERE sequence > (SELECT mark FROM oldest) GROUP BY ALL
),
claim AS (
    SELECT store, noun, name, arg_max(holder, sequence) AS holder FROM claims
    WHERE sequence > (SELECT mark FROM oldest) GROUP BY ALL
)
SELECT need.flight, need.opened, need.store, need.digest, need.size, need.chain_id,
    need.fetched OR coalesce(blob.mark > need.mark, false) AS fetched, need.fetched AS present,
    need.unpacked OR coalesce(snapshot.mark > need.mark, false) AS unpacked, need.unpacked AS made_before,
    coalesce(fetching.holder, '') AS fetch_holder, coalesce(unpacking.holder, '') AS unpack_holder
FROM need
    LEFT JOIN blob ON blob.store = need.store AND blob.digest = need.digest
    LEFT JOIN snapshot ON snapshot.store = need.store AND snapshot.chain_id = need.chain_id
    LEFT JOIN claim AS fetching
        ON fetching.noun = 'blob' AND fetching.store = need.store AND fetching.name = need.digest
    LEFT JOIN claim AS unpacking
        ON unpacking.noun = 'layer' AND unpacking.store = need.store AND unpacking.name = need.chain_id
ORDER BY need.opened, need.flight, need.position
"""

_SNAPSHOTS = "SELECT DISTINCT flight, opened, snapshots FROM waiting"


class ActiveWork(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One blob to fetch or layer to unpack. `state` is `present`, `done`, `wanted`, `ordered`, or what its worker says."""

    id: str
    kind: str
    name: str
    size: int = 0
    done: int = 0
    state: str = ""
    holder: str = ""
    attempts: int = 0
    error: str = ""
    flights: int = 0
    requests: int = 0
    """That wait for it."""


class ActiveFlight(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One flight. `layers` names its works, the lowest layer first: the fetch, and the unpack or nothing."""

    key: str
    flight: str
    opened: int
    since: float
    """Seconds since the epoch."""
    store: str
    reference: str
    platform: str = ""
    requests: int = 0
    cancelled: int = 0
    requesters: tuple[str, ...] = ()
    doors: dict[str, int] = {}
    state: str = ""
    layers: tuple[tuple[str, str], ...] = ()
    error: str = ""
    """Why its resolution, or its listing, came to nothing so far and is tried again."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What the tables say of what is in flight at one moment."""

    position: int
    flights: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    unpacked: frozenset[tuple[str, int]] = frozenset()
    """Flights that want snapshots."""
    ended: tuple[Pull, ...] = ()


@dataclass(frozen=True, slots=True)
class Activity:
    """Flights and works by their keys."""

    flights: dict[str, ActiveFlight]
    works: dict[str, ActiveWork]


def read(reader: duckdb.DuckDBPyConnection) -> Tables:
    """Read what is in flight, and what ended last."""
    position = rows(reader, "SELECT sequence FROM position")[0]["sequence"]
    newest = rows(reader, f"SELECT * FROM ended_flights ORDER BY ended DESC LIMIT {ENDED_SHOWN}")
    ended = tuple(pull(row) for row in newest)
    flights = rows(reader, _FLIGHTS)
    if not flights:
        return Tables(position, ended=ended)
    wanted = rows(reader, _SNAPSHOTS)
    unpacked = frozenset((row["flight"], row["opened"]) for row in wanted if row["snapshots"])
    return Tables(position, flights, rows(reader, _LAYERS), unpacked, ended)


def activity_of(tables: Tables, live: Live) -> Activity:
    """The tables with progress laid over them."""
    layers: dict[tuple[str, int], list[Row]] = {}
    for row in tables.layers:
        layers.setdefault((row["flight"], row["opened"]), []).append(row)
    works: dict[str, _Making] = {}
    flights: dict[str, ActiveFlight] = {}
    for row in tables.flights:
        names = (row["flight"], row["opened"])
        waiting = row["requests"] - row["cancelled"]
        needs = layers.get(names, [])
        unpack = names in tables.unpacked
        drawn = tuple((_blob(works, need, waiting), _layer(works, need, waiting) if unpack else "") for need in needs)
        state = _state(works, needs, drawn)
        flight = _flight(row, state, drawn, live)
        flights[flight.key] = flight
    return Activity(flights, {name: work.shown(live) for name, work in works.items()})


@dataclass(slots=True)
class _Making:
    """A work that flights are still being added to."""

    store: str
    kind: Sort
    name: str
    size: int
    over: bool
    present: bool
    holder: str
    flights: int = 0
    requests: int = 0

    def wanted_by(self, requests: int) -> None:
        self.flights += 1
        self.requests += requests

    def shown(self, live: Live) -> ActiveWork:
        heard = LiveProgress() if self.over else live.of(self.kind, self.store, self.name)
        state = (
            ("present" if self.present else "done") if self.over else heard.state or ("ordered" if self.holder else "wanted")
        )
        return ActiveWork(
            id=_id(self.kind, self.store, self.name),
            kind=self.kind,
            name=self.name,
            size=self.size,
            done=self.size if self.over else heard.done,
            state=state,
            holder=self.holder,
            attempts=heard.attempts,
            error=heard.error,
            flights=self.flights,
            requests=self.requests,
        )


def _id(kind: str, store: str, name: str) -> str:
    return f"{kind}/{store}/{name}"


def _blob(works: dict[str, _Making], need: Row, requests: int) -> str:
    name = _id("fetch", need["store"], need["digest"])
    if name not in works:
        works[name] = _Making(
            need["store"], "fetch", need["digest"], need["size"], need["fetched"], need["present"], need["fetch_holder"]
        )
    work = works[name]
    work.over = work.over or need["fetched"]
    work.wanted_by(requests)
    return name


def _layer(works: dict[str, _Making], need: Row, requests: int) -> str:
    if not need["chain_id"]:
        return ""
    name = _id("unpack", need["store"], need["chain_id"])
    if name not in works:
        works[name] = _Making(
            need["store"], "unpack", need["chain_id"], need["size"], need["unpacked"], need["made_before"],
            need["unpack_holder"],
        )  # fmt: skip
    work = works[name]
    work.over = work.over or need["unpacked"]
    work.wanted_by(requests)
    return name


def _state(works: dict[str, _Making], needs: Iterable[Row], drawn: tuple[tuple[str, str], ...]) -> str:
    if not drawn:
        return "listing" if needs else "resolving"
    if any(not works[blob].over for blob, _ in drawn):
        return "fetching"
    return "unpacking" if any(layer and not works[layer].over for _, layer in drawn) else "listing"


def _flight(row: Row, state: str, layers: tuple[tuple[str, str], ...], live: Live) -> ActiveFlight:
    opened_at: datetime = row["opened_at"]
    return ActiveFlight(
        key=f"{row['flight']}.{row['opened']}",
        flight=row["flight"],
        opened=row["opened"],
        since=seconds_of(opened_at),
        store=row["store"],
        reference=row["reference"],
        platform=row["platform"],
        requests=row["requests"],
        cancelled=row["cancelled"],
        requesters=tuple(row["requesters"] or ()),
        doors=row["doors"] or {},
        state=state,
        layers=layers,
        error=_trouble(row, state, live),
    )


def _trouble(row: Row, state: str, live: Live) -> str:
    """Why a flight is not past its present step, where that step is one of the whole flight."""
    steps: dict[str, Sort] = {"resolving": "resolve", "listing": "record"}
    if state not in steps:
        return ""
    return live.of(steps[state], row["store"], flight_name(row["flight"], row["opened"])).error

"""SQL → structs: the questions that have an answer of their own, over one reading connection.

Everything given by people is bound as a parameter.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import duckdb

from pullonce.errors import PullonceError, ReferenceInvalid
from pullonce.oci.reference import parse
from schemas.ledger import AskHistory, AskStats, Figures, Gap, History, Pull, Stats

Row = dict[str, Any]

_PULL = (
    *(
        "flight",
        "opened",
        "opened_at",
        "store",
        "reference",
        "platform",
        "requests",
        "cancelled",
        "requesters",
        "doors",
        "ended",
    ),
    *("ended_at", "outcome", "code", "message", "seconds", "release", "digest", "layers", "size", "fetched"),
    *("fetched_bytes", "reused", "reused_bytes", "waited", "waited_bytes", "unpacked"),
)


_MOST_GAPS = 10


class NoAnswer(PullonceError):
    """The ledger cannot say.

    Attributes:
        code: `pull.unknown`, `reference.invalid`, `sql.refused`…
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


def rows(reader: duckdb.DuckDBPyConnection, query: str, *values: object) -> list[Row]:
    """The rows of one of our own queries, by column."""
    found = reader.execute(query, list(values))
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def utc(moment: datetime) -> datetime:
    """A time as it lies in the tables: UTC, without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def seconds_of(moment: datetime) -> float:
    """A time as it lies in the tables → seconds since the epoch."""
    return moment.replace(tzinfo=UTC).timestamp()


def history(reader: duckdb.DuckDBPyConnection, asked: AskHistory) -> History:
    """Pulls, the newest first.

    Raises:
        NoAnswer: `reference.invalid`.
    """
    conditions, values = _conditions(asked.reference, asked.store)
    if asked.since is not None:
        conditions.append("opened_at >= ?")
        values.append(utc(asked.since))
    if asked.before:
        conditions.append("opened < ?")
        values.append(asked.before)
    if asked.failed:
        conditions.append("outcome = 'failed'")
    if asked.search:
        # `contains` knows no wildcards, so whatever is looked for is looked for as it is.
        conditions.append(
            "(contains(lower(reference), lower(?)) OR contains(lower(array_to_string(requesters, ' ')), lower(?)))"
        )
        values += [asked.search, asked.search]
    where = " AND ".join(conditions) or "true"
    # The newest are found by their positions alone, so that only as many whole rows are read as are shown.
    query = (
        f"WITH newest AS (SELECT flight, opened FROM flights WHERE {where} ORDER BY opened DESC LIMIT ?) "
        f"SELECT {', '.join(_PULL)} FROM flights SEMI JOIN newest USING (flight, opened) ORDER BY opened DESC"
    )
    pulls = tuple(pull(row) for row in rows(reader, query, *values, asked.limit))
    return History(pulls=pulls, gaps=gaps(reader, asked.since))


def gaps(reader: duckdb.DuckDBPyConnection, since: datetime | None) -> tuple[Gap, ...]:
    """What the ledger has missed since then, the newest first; of many, the largest."""
    found = rows(
        reader,
        "SELECT after_time, time, missing FROM gaps WHERE time >= coalesce(?, '-infinity'::TIMESTAMP) "
        "ORDER BY missing DESC, sequence DESC LIMIT ?",
        utc(since) if since is not None else None,
        _MOST_GAPS,
    )
    found.sort(key=lambda row: row["time"], reverse=True)
    told = ((row["after_time"].replace(tzinfo=UTC), row["time"].replace(tzinfo=UTC), row["missing"]) for row in found)
    return tuple(Gap(begin=begin, end=end, missing=missing) for begin, end, missing in told)


def pull(row: Row) -> Pull:
    """A row of `flights` as a struct."""
    given = {name: row[name] for name in _PULL if row[name] is not None}
    for name in ("opened_at", "ended_at"):
        if name in given:
            given[name] = given[name].replace(tzinfo=UTC)
    return Pull(**given | {"requesters": tuple(given.get("requesters", ()))})


def _conditions(reference: str, store: str) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if reference:
        conditions.append("reference = ?")
        values.append(normal(reference))
    if store:
        conditions.append("store = ?")
        values.append(store)
    return conditions, values


def normal(reference: str) -> str:
    """The normalised form of a reference; raises NoAnswer."""
    try:
        return str(parse(reference))
    except ReferenceInvalid as exc:
        raise NoAnswer(str(exc), code="reference.invalid") from exc


_GROUPS = {
    "all": "''",
    "image": "reference",
    "registry": "registry",
    "store": "store",
    "door": "door",
    "day": "ended_at::DATE",
    "hour": "date_trunc('hour', ended_at)",
}
_NAMES = {"day": "strftime(shown.name, '%Y-%m-%d')", "hour": "strftime(shown.name, '%Y-%m-%dT%H:00')"}
"""How those are written: once a group, not once a row."""

_BY_DOOR = """(
    SELECT * EXCLUDE (part) REPLACE (part.value AS requests), part.key AS door FROM (
        SELECT *, unnest(list_concat(coalesce(map_entries(doors), []),
            [{'key': '', 'value': requests - coalesce(list_sum(map_values(doors)), 0)::BIGINT}])) AS part
        FROM ended_flights
    ) WHERE part.value > 0
)"""
"""Ended flights, once for each door by which somebody asked; the door is empty where none was said."""

_PERCENTILES = "[0.5, 0.95, 0.99]"


def stats(reader: duckdb.DuckDBPyConnection, asked: AskStats) -> Stats:
    """Figures of ended pulls by group; what was rolled up counts, but knows no percentiles beyond its days'.

    Raises:
        NoAnswer: `reference.invalid`.
    """
    conditions, values = _conditions(asked.reference, asked.store)
    rolled, rolled_values = list(conditions), list(values)
    if asked.since is not None:
        conditions.append("ended_at >= ?")
        rolled.append("day >= ?::DATE")
        values.append(utc(asked.since))
        rolled_values.append(utc(asked.since))
    group = _GROUPS[asked.by]
    ended = _BY_DOOR if asked.by == "door" else "ended_flights"
    past = "''" if asked.by == "door" else group.replace("ended_at", "day")  # what is rolled up knows no doors
    order = "shown.name DESC" if asked.by in ("day", "hour") else "requests DESC, shown.name"
    among = " AND ".join(conditions) or "true"
    # Sums first: they say which groups are shown, and only of these are all times sorted.
    query = f"""
    WITH live AS (
        SELECT {group} AS name, count(*) AS flights, count_if(outcome = 'failed') AS failed, sum(requests) AS requests,
            sum(cancelled) AS cancelled, sum(requests * size) AS asked_bytes, sum(fetched_bytes) AS fetched_bytes,
            sum(reused_bytes) AS reused_bytes, sum(waited_bytes) AS waited_bytes, NULL AS past
        FROM {ended} WHERE {among} GROUP BY ALL
    ), rolled AS (
        SELECT {past} AS name, sum(flights) AS flights, sum(failed) AS failed,
            sum(requests) AS requests, sum(cancelled) AS cancelled, sum(size) AS asked_bytes,
            sum(fetched_bytes) AS fetched_bytes, sum(reused_bytes) AS reused_bytes, sum(waited_bytes) AS waited_bytes,
            CASE WHEN count(*) > 0 THEN [max(p50), max(p95), max(p99)] END AS past
        FROM days WHERE {" AND ".join(rolled) or "true"} GROUP BY ALL
    ), shown AS MATERIALIZED (
        SELECT name, sum(flights)::BIGINT AS flights, sum(failed)::BIGINT AS failed, sum(requests)::BIGINT AS requests,
            sum(cancelled)::BIGINT AS cancelled, sum(asked_bytes)::DOUBLE AS asked_bytes,
            sum(fetched_bytes)::DOUBLE AS fetched_bytes, sum(reused_bytes)::DOUBLE AS reused_bytes,
            sum(waited_bytes)::DOUBLE AS waited_bytes, any_value(past) AS past
        FROM (FROM live UNION ALL BY NAME FROM rolled) GROUP BY name ORDER BY {order.replace("shown.", "")} LIMIT ?
    ), times AS (
        SELECT {group} AS name, quantile_disc(seconds, {_PERCENTILES}) AS took,
            quantile_disc(release, {_PERCENTILES}) AS released
        FROM {ended} WHERE {among} AND {group} IN (SELECT name FROM shown) GROUP BY ALL
    )
    SELECT shown.* REPLACE ({_NAMES.get(asked.by, "shown.name")} AS name), coalesce(took, past) AS took, released
    FROM shown LEFT JOIN times ON times.name = shown.name ORDER BY {order}
    """
    found = rows(reader, query, *values, *rolled_values, asked.limit, *values)
    figures = tuple(_figures(row) for row in found if row["flights"])
    return Stats(by=asked.by, figures=figures, gaps=gaps(reader, asked.since))


def _figures(row: Row) -> Figures:
    took, released = row["took"] or [None] * 3, row["released"] or [None] * 3
    asked, fetched = int(row["asked_bytes"] or 0), int(row["fetched_bytes"] or 0)
    return Figures(
        name=row["name"],
        flights=row["flights"],
        failed=row["failed"],
        requests=row["requests"],
        cancelled=row["cancelled"],
        sharing=row["requests"] / row["flights"],
        asked_bytes=asked,
        fetched_bytes=fetched,
        reused_bytes=int(row["reused_bytes"] or 0),
        waited_bytes=int(row["waited_bytes"] or 0),
        saved_bytes=max(0, asked - fetched),
        p50=took[0],
        p95=took[1],
        p99=took[2],
        release_p50=released[0],
        release_p95=released[1],
        release_p99=released[2],
    )

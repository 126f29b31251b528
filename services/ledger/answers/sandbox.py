"""One SQL query from outside, carried out so that it can only read the ledger.

Three walls, none of which looks at the text: the parser says which kind of statement it is, and only a SELECT passes; it runs
in a transaction that the engine holds to reading; and the whole database is sealed against files, settings and extensions
(`projection.Ledger`). A query that takes too long is interrupted.
"""

from __future__ import annotations

import math
import threading
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb

from schemas.ledger import AskSql, Table
from services.ledger.answers.queries import NoAnswer
from services.ledger.fold.trouble import trouble

PATIENCE = 30.0
"""Seconds after which a query is interrupted."""

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_MOST_BYTES = 384 << 10
"""Of all values, as text: an answer must fit into one message of the bus."""


def run(reader: duckdb.DuckDBPyConnection, asked: AskSql, *, patience: float = PATIENCE) -> Table:
    """The rows of a query.

    Raises:
        NoAnswer: `sql.refused` where it is not one query that reads; `sql.invalid`, `sql.timeout`, `sql.memory`.
    """
    _check(reader, asked.query)
    timer = threading.Timer(patience, reader.interrupt)
    timer.start()
    try:
        reader.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return _read(reader, asked)
        finally:
            reader.execute("ROLLBACK")
    except duckdb.InterruptException:
        raise NoAnswer(f"the query was stopped after {patience:g} s", code="sql.timeout") from None
    except duckdb.OutOfMemoryException as exc:
        raise NoAnswer(_one_line(exc), code="sql.memory") from exc
    except duckdb.FatalException:
        raise  # nothing is wrong with the query; it is asked again
    except duckdb.Error as exc:
        refused = trouble(exc)  # what is too large for the memory is put on the disk
        raise NoAnswer(_one_line(exc), code=refused.code if refused else "sql.invalid") from exc
    finally:
        timer.cancel()


def _check(reader: duckdb.DuckDBPyConnection, query: str) -> None:
    try:
        statements = reader.extract_statements(query)
    except duckdb.Error as exc:
        raise NoAnswer(_one_line(exc), code="sql.invalid") from exc
    if len(statements) != 1 or statements[0].type not in _READING:
        kinds = ", ".join(str(statement.type).rpartition(".")[2] for statement in statements) or "nothing"
        raise NoAnswer(f"the ledger answers one SELECT at a time, and was given {kinds}", code="sql.refused")


def _read(reader: duckdb.DuckDBPyConnection, asked: AskSql) -> Table:
    found = reader.execute(asked.query)
    description = found.description or []
    rows: list[tuple[Any, ...]] = []
    size = 0
    while len(rows) < asked.limit and (row := found.fetchone()) is not None:
        told = tuple(_told(value) for value in row)
        size += sum(len(str(value)) + 4 for value in told)
        if size > _MOST_BYTES:
            break
        rows.append(told)
    else:
        size = 0 if len(rows) < asked.limit or found.fetchone() is None else _MOST_BYTES + 1
    return Table(
        columns=tuple(column[0] for column in description),
        types=tuple(str(column[1]) for column in description),
        rows=tuple(rows),
        truncated=size > _MOST_BYTES,
    )


def _told(value: Any) -> Any:
    """A value as JSON can say it."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 1 << 63 else str(value)
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case dict():
            return {str(key): _told(each) for key, each in value.items()}
        case list() | tuple():
            return [_told(each) for each in value]
        case bytes():
            return value.hex()
        case Decimal() | UUID() | _:
            return str(value)


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:1000]

"""One SQL query from outside, carried out so that it can only read the ledger.

Three walls: the parser says which kind of statement it is, and only a SELECT that only reads passes (`statement`), or the
EXPLAIN of one; it runs in a transaction that the engine holds to reading; and the whole database is sealed against files,
settings and extensions (`projection.Ledger`): no directory is open to it but the one that DuckDB itself spills to. A query that
takes too long is interrupted.
"""

from __future__ import annotations

import math
import threading
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import msgspec

from schemas.ledger import AskSql, Table
from services.ledger.answers import statement
from services.ledger.answers.queries import NoAnswer
from services.ledger.fold.trouble import trouble

PATIENCE = 30.0
"""Seconds after which a query is interrupted."""

_MOST_BYTES = 384 << 10
"""Of all values, as text: an answer must fit into one message of the bus."""


def run(reader: duckdb.DuckDBPyConnection, asked: AskSql, *, patience: float = PATIENCE) -> Table:
    """The rows of a query.

    Raises:
        NoAnswer: `sql.refused` where it is not one query that reads; `sql.invalid`, `sql.timeout`, `sql.memory`.
    """
    late = threading.Event()

    def stop() -> None:
        late.set()
        reader.interrupt()

    timer = threading.Timer(patience, stop)
    timer.start()
    try:
        query = _checked(reader, asked.query)
        reader.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return _read(reader, query, asked.limit)
        finally:
            reader.execute("ROLLBACK")
    except duckdb.InterruptException:
        if late.is_set():
            raise NoAnswer(f"the query was stopped after {patience:g} s", code="sql.timeout") from None
        raise NoAnswer("the query was stopped: the ledger needs the memory for its own work", code="sql.memory") from None
    except duckdb.OutOfMemoryException as exc:
        raise NoAnswer(_one_line(exc), code="sql.memory") from exc
    except duckdb.FatalException:
        raise  # nothing is wrong with the query; it is asked again
    except duckdb.Error as exc:
        refused = trouble(exc)  # what is too large for the memory is put on the disk
        raise NoAnswer(_one_line(exc), code=refused.code if refused else "sql.invalid") from exc
    finally:
        timer.cancel()


def _checked(reader: duckdb.DuckDBPyConnection, query: str) -> str:
    """The query as it is to be run: one SELECT, or the EXPLAIN of one."""
    try:
        statements = reader.extract_statements(query)
    except duckdb.ParserException as exc:
        raise NoAnswer(_one_line(exc), code="sql.invalid") from exc
    kinds = [_kind(each) for each in statements]
    if kinds == [duckdb.StatementType.SELECT]:
        head, rest = "", statements[0].query
    elif kinds == [duckdb.StatementType.EXPLAIN] and (parts := statement.explained(statements[0].query)):
        head, rest = parts
    else:
        told = ", ".join(str(kind).rpartition(".")[2] for kind in kinds) or "nothing"
        raise NoAnswer(f"the ledger answers one SELECT at a time, and was given {told}", code="sql.refused")
    if why := statement.complaint(_tree(reader, rest)):
        raise NoAnswer(f"the ledger answers one SELECT that only reads, or its EXPLAIN: {why}", code="sql.refused")
    return head + rest


def _kind(given: duckdb.Statement) -> duckdb.StatementType:
    try:
        return given.type
    except ValueError:  # a kind that the binding has no name for
        return duckdb.StatementType.INVALID


def _tree(reader: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    """The syntax tree of a query, as DuckDB says it in JSON."""
    try:
        found = reader.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()
        return msgspec.json.decode(found[0] if found else "{}", type=dict)
    except (duckdb.ParserException, duckdb.SerializationException, RecursionError) as exc:
        raise NoAnswer(f"the query cannot be looked through: {_one_line(exc)}", code="sql.refused") from exc


def _read(reader: duckdb.DuckDBPyConnection, query: str, limit: int) -> Table:
    found = reader.execute(query)
    description = found.description or []
    rows: list[tuple[Any, ...]] = []
    size = 0
    while len(rows) < limit and (row := found.fetchone()) is not None:
        told = tuple(_told(value) for value in row)
        size += sum(len(str(value)) + 4 for value in told)
        if size > _MOST_BYTES:
            break
        rows.append(told)
    else:
        size = 0 if len(rows) < limit or found.fetchone() is None else _MOST_BYTES + 1
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

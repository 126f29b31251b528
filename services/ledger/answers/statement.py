"""Whether a query of somebody else's only reads: judged by its syntax tree, as DuckDB's parser gives it. Pure.

A SELECT is not harmless by being one. A part of it may write (`WITH a AS (DELETE …)`), and a table function may be a command
(`FROM force_checkpoint()`), read a file, run a text as SQL, or follow an address in our memory. So table functions are those
listed here, and a function of a newer DuckDB is refused until somebody has looked at it.
"""

import re
from collections.abc import Iterator
from typing import Any

_READING_NODES = frozenset(("SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"))

_TABLE_FUNCTIONS = frozenset(
    (
        *(
            "range",
            "generate_series",
            "unnest",
            "repeat",
            "repeat_row",
            "json_each",
            "json_tree",
            "histogram",
            "histogram_values",
        ),
        *("pg_timezone_names", "icu_calendar_names", "duckdb_columns", "duckdb_constraints", "duckdb_databases"),
        *("duckdb_functions", "duckdb_indexes", "duckdb_keywords", "duckdb_memory", "duckdb_schemas", "duckdb_settings"),
        *("duckdb_tables", "duckdb_temporary_files", "duckdb_types", "duckdb_views", "pragma_database_size", "pragma_platform"),
        *("pragma_show", "pragma_storage_info", "pragma_table_info", "pragma_version"),
    )
)

_REFUSED_FUNCTIONS = frozenset(("write_log", "sleep_ms", "pg_sleep", "setval", "nextval", "currval", "setseed", "getenv"))
"""They write, hold a reader for nothing, or tell of this process. All others compute."""

_EXPLAIN = re.compile(
    r"\s*EXPLAIN\b\s*(?P<options>ANALYZE\b|\((?:\s*(?:ANALYZE|FORMAT\s+\w+)\s*,?)+\))?(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)


def explained(statement: str) -> tuple[str, str] | None:
    """An EXPLAIN statement → itself up to what it explains, and that. None where it is written in another way than is known."""
    found = _EXPLAIN.fullmatch(statement)
    return None if found is None else (f"EXPLAIN {found['options'] or ''} ", found["rest"])


def complaint(tree: dict[str, Any]) -> str:
    """Why a tree is not one SELECT that only reads, in words for who wrote it; empty: it is.

    Args:
        tree: what `json_serialize_sql` says, an error included.
    """
    if tree.get("error"):
        return str(tree.get("error_message"))
    for each in _nodes(tree):
        kind = each.get("type")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _READING_NODES:
            return f"a part of the query does more than read ({kind.removesuffix('_QUERY_NODE')})"
        name = str(each.get("function_name", "")).lower()
        if name in _REFUSED_FUNCTIONS:
            return f"the function {name} is not for queries"
        if kind == "TABLE_FUNCTION":
            called = str((each.get("function") or {}).get("function_name", "")).lower()
            if called not in _TABLE_FUNCTIONS:
                return f"the table function {called} is not for queries"
    return ""


def _nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All objects of a tree, however deep, without a stack of calls."""
    left: list[Any] = [tree]
    while left:
        match left.pop():
            case dict() as each:
                yield each
                left.extend(each.values())
            case list() as several:
                left.extend(several)

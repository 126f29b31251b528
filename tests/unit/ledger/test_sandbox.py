"""SQL from outside reads the ledger, and can do nothing else."""

from collections.abc import Iterator

import duckdb
import pytest

from schemas.ledger import AskSql, Table
from services.ledger.answers import sandbox
from services.ledger.answers.queries import NoAnswer
from services.ledger.fold.projection import Ledger
from services.ledger.fold.staging import stage
from tests.support.ledgers import folded
from tests.support.long_log import long_log


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    path = tmp_path_factory.mktemp("ledger") / "it's a ledger" / "ledger.duckdb"
    made = folded(path, [[stage(*each) for each in long_log(2000)]])
    yield made
    made.close()


def run(ledger: Ledger, query: str, limit: int = 1000) -> Table:
    reader = ledger.reader()
    try:
        return sandbox.run(reader, AskSql(query=query, limit=limit))
    finally:
        reader.close()


def refused(ledger: Ledger, query: str) -> str:
    with pytest.raises(NoAnswer) as caught:
        run(ledger, query)
    return caught.value.code


def test_a_query_gets_columns_types_and_rows(ledger: Ledger) -> None:
    found = run(ledger, "SELECT outcome, count(*) AS n, min(opened_at) AS first FROM flights GROUP BY 1 ORDER BY n DESC")
    assert found.columns == ("outcome", "n", "first")
    assert found.types == ("VARCHAR", "BIGINT", "TIMESTAMP")
    assert found.rows[0][0] == "completed" and found.rows[0][1] > 50
    assert str(found.rows[0][2]).startswith("2023-11-14T22:13:20")
    assert not found.truncated


@pytest.mark.parametrize(
    "query",
    [
        "FROM flights", "WITH a AS (FROM requests) SELECT * FROM a", "DESCRIBE flights", "SHOW TABLES", "SUMMARIZE blobs",
        "EXPLAIN SELECT 1", "VALUES (1)", "SELECT * FROM registries -- all\n;",
    ],
)  # fmt: skip
def test_whatever_only_reads_is_allowed(ledger: Ledger, query: str) -> None:
    assert run(ledger, query).rows


@pytest.mark.parametrize(
    "query",
    [
        "", ";", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE events", "DELETE FROM events", "DROP VIEW flights",
        "INSERT INTO events VALUES (1, NULL, 'x')", "WITH a AS (SELECT 1) INSERT INTO events SELECT 1, NULL, 'x' FROM a",
        "UPDATE position SET sequence = 0", "CREATE TABLE mine (a INT)", "CREATE TEMP TABLE mine (a INT)",
        "CREATE MACRO f() AS 1", "ATTACH ':memory:' AS other", "COPY flights TO 'x.csv'", "COPY (SELECT 1) TO '/dev/stdout'",
        "EXPORT DATABASE 'x'", "INSTALL httpfs", "LOAD json", "SET memory_limit = '10GB'", "SET GLOBAL threads = 1",
        "RESET lock_configuration", "PRAGMA enable_profiling", "CALL force_checkpoint()", "CHECKPOINT", "BEGIN", "COMMIT",
        "ROLLBACK; DELETE FROM events", "VACUUM", "USE temp", "PREPARE a AS DELETE FROM events", "EXECUTE a",
    ],
)  # fmt: skip
def test_whatever_does_more_is_refused(ledger: Ledger, query: str) -> None:
    assert refused(ledger, query) == "sql.refused"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/proc/self/environ')", "SELECT * FROM glob('/*')", "FROM read_parquet('/tmp/*.parquet')",
        "SELECT * FROM read_json('https://example.invalid/x.json')", "SELECT getenv('HOME')", "FROM sniff_csv('/etc/passwd')",
        "FROM duckdb_log_contents('/etc/passwd')", "FROM read_duckdb('other.duckdb')", "FROM parquet_metadata('x')",
        "DESCRIBE SELECT * FROM read_csv('/etc/passwd')", "WITH a AS (FROM glob('*')) FROM a",
        "SELECT (SELECT count(*) FROM glob('*'))", "SELECT 1 UNION ALL SELECT count(*) FROM glob('*')",
        "FROM query('DELETE FROM events')", "FROM json_execute_serialized_sql('{}')", "FROM arrow_scan(1, 2, 3)",
        "FROM python_map_function()", "FROM pandas_scan(1)", "FROM seq_scan()",
    ],
)  # fmt: skip
def test_functions_that_reach_beyond_the_ledger_are_refused(ledger: Ledger, query: str) -> None:
    assert refused(ledger, query) == "sql.refused"


@pytest.mark.parametrize(
    "query",
    [
        "FROM force_checkpoint()", "FROM checkpoint()", "FROM main.checkpoint()", 'FROM "CHECKPOINT"()',
        "FROM enable_logging()",
        "FROM truncate_duckdb_logs()", "FROM enable_profiling()", "FROM create_external_resource('x')", "SELECT write_log('x')",
        "SELECT system.main.write_log('x')", "SELECT list_transform([1], lambda x: write_log('a'))", "SELECT 'x'.write_log()",
        "SELECT sleep_ms(100000)", "SELECT pg_sleep(1000)", "SELECT nextval('s')", "SELECT setseed(0.5)",
        "WITH a AS (DELETE FROM events RETURNING *) FROM a",
        "WITH a AS (SELECT 1) (WITH b AS (DELETE FROM events RETURNING *) FROM b)",
        "WITH a AS MATERIALIZED (INSERT INTO events VALUES (1, NULL, 'x') RETURNING *) FROM a",
        "WITH a AS (UPDATE position SET sequence = 0 RETURNING *) FROM a",
    ],
)  # fmt: skip
def test_commands_that_are_dressed_as_queries_are_refused(ledger: Ledger, query: str) -> None:
    before = run(ledger, "SELECT count(*) FROM events").rows
    assert refused(ledger, query) in ("sql.refused", "sql.invalid")
    assert run(ledger, "SELECT count(*) FROM events").rows == before


_COMMANDS = (
    "COPY (SELECT 1) TO 'x.csv'", "COPY flights TO '{exports}/x.parquet' (FORMAT parquet)", "CHECKPOINT", "FORCE CHECKPOINT",
    "VACUUM", "VACUUM ANALYZE", "DELETE FROM events", "INSERT INTO events VALUES (1, NULL, 'x')",
    "UPDATE position SET sequence = 0",
    "CREATE TABLE mine AS SELECT 1", "DROP TABLE events", "ATTACH '{exports}/x.duckdb' AS other", "DETACH other",
    "EXPORT DATABASE '{exports}/x'", "IMPORT DATABASE '{exports}/x'", "INSTALL httpfs", "LOAD httpfs", "SET threads = 1",
    "SET VARIABLE a = 1", "RESET threads", "PRAGMA enable_profiling", "PRAGMA database_list", "CALL force_checkpoint()",
    "CALL enable_logging()", "USE temp", "BEGIN", "COMMIT", "PREPARE a AS SELECT 1", "EXECUTE a", "DEALLOCATE a",
    "ALTER TABLE events ADD COLUMN a INT", "COMMENT ON TABLE events IS 'x'", "CREATE SECRET (TYPE s3)",
    "COPY FROM DATABASE a TO b",
    "MERGE INTO events USING flights ON false WHEN NOT MATCHED THEN INSERT VALUES (1, NULL, 'x')", "UPDATE EXTENSIONS",
    "SELECT 1; SELECT 2",
)  # fmt: skip


@pytest.mark.parametrize("command", _COMMANDS)
@pytest.mark.parametrize(
    "way",
    ["{}", "EXPLAIN {}", "EXPLAIN ANALYZE {}", "explain /* a */ analyze -- b\n {}", "EXPLAIN (ANALYZE, FORMAT json) {}",
     "SELECT 1; {}", "{}; SELECT 1"]
)  # fmt: skip
def test_no_command_is_carried_out_however_it_is_wrapped(ledger: Ledger, way: str, command: str) -> None:
    files = sorted(ledger.path.parent.rglob("*"))
    quoted = str(ledger.exports).replace("'", "''")
    assert refused(ledger, way.format(command.format(exports=quoted))) in ("sql.refused", "sql.invalid")
    assert sorted(ledger.path.parent.rglob("*")) == files
    assert run(ledger, "SELECT count(*) FROM events").rows[0][0] >= 2000


@pytest.mark.parametrize(
    "query",
    ["EXPLAIN FROM flights", "EXPLAIN ANALYZE SELECT count(*) FROM flights", "explain (format json) FROM flights",
     "EXPLAIN (ANALYZE, FORMAT json) SELECT 1", "EXPLAIN (SELECT 1)", "/* a */ EXPLAIN -- b\n SELECT 1", "EXPLAIN VALUES (1)"],
)  # fmt: skip
def test_a_select_is_explained(ledger: Ledger, query: str) -> None:
    assert run(ledger, query).rows


@pytest.mark.parametrize(
    "query",
    [
        "FROM '/etc/passwd'",
        "SELEKT 1",
        "SELECT nothing",
        "FROM ledger",
        "FROM asked",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    ],
)
def test_what_cannot_be_answered_is_said(ledger: Ledger, query: str) -> None:
    assert refused(ledger, query) in ("sql.invalid", "sql.refused")
    assert run(ledger, "SELECT 1").rows == ((1,),)


def test_the_engine_itself_opens_no_file_and_takes_no_setting(ledger: Ledger) -> None:
    """The last wall, should a statement ever pass the others."""
    quoted = str(ledger.exports).replace("'", "''")
    reader = ledger.reader()
    try:
        for statement in (
            f"COPY (SELECT 1) TO '{quoted}/x.csv'", f"FROM read_csv('{quoted}/*')", f"ATTACH '{quoted}/x.duckdb' AS x",
            f"EXPORT DATABASE '{quoted}/x'", "INSTALL httpfs", "SET enable_external_access = true",
            f"SET allowed_directories = ['{quoted}']", "SET temp_directory = '/tmp'", "SET memory_limit = '10GB'",
        ):  # fmt: skip
            with pytest.raises(duckdb.Error):
                reader.execute(statement)
        assert reader.execute("SELECT current_setting('allowed_directories')").fetchall() == [
            ([f"{ledger.path.with_suffix('.tmp')}/"],)  # where it spills to, which DuckDB opens by itself
        ]
        assert reader.execute("SELECT current_setting('max_temp_directory_size')").fetchall() == [("1.9 GiB",)]
    finally:
        reader.close()
    assert not list(ledger.exports.iterdir())


def test_values_of_all_kinds_become_json(ledger: Ledger) -> None:
    found = run(
        ledger,
        "SELECT NULL, 1, 1.5::DOUBLE, 'nan'::DOUBLE, 2::HUGEINT << 100, 1.25::DECIMAL(5, 2), DATE '2026-01-02', "
        "TIME '10:00:00', INTERVAL 90 SECONDS, MAP {'a': 1}, [1, NULL], {'x': 'y'}, '\\x01'::BLOB, uuid() IS NOT NULL, true",
    )
    assert found.rows[0] == (
        None, 1, 1.5, None, str(2 << 100), "1.25", "2026-01-02", "10:00:00", 90.0, {"a": 1}, [1, None], {"x": "y"}, "01",
        True, True,
    )  # fmt: skip


def test_too_many_rows_are_cut_and_that_is_said(ledger: Ledger) -> None:
    assert len(run(ledger, "FROM range(10)", limit=10).rows) == 10
    assert not run(ledger, "FROM range(10)", limit=10).truncated
    cut = run(ledger, "FROM range(11)", limit=10)
    assert len(cut.rows) == 10 and cut.truncated
    wide = run(ledger, "SELECT repeat('x', 100_000) FROM range(100)")
    assert len(wide.rows) == 3 and wide.truncated


def test_a_query_without_end_is_stopped(ledger: Ledger) -> None:
    reader = ledger.reader()
    with pytest.raises(NoAnswer) as caught:
        sandbox.run(reader, AskSql(query="SELECT count(*) FROM range(1000000) a, range(1000000) b"), patience=0.2)
    assert caught.value.code == "sql.timeout"
    assert sandbox.run(reader, AskSql(query="SELECT 1")).rows == ((1,),)
    reader.close()


def test_a_query_that_wants_all_memory_is_stopped(ledger: Ledger) -> None:
    assert refused(ledger, "SELECT list(range || repeat('x', 10000)) FROM range(1000000)") in ("sql.memory", "sql.timeout")
    assert run(ledger, "SELECT 1").rows == ((1,),)

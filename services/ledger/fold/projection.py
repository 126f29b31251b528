"""The ledger's file: one DuckDB database that this process alone has open, written by one fold and read by many.

Rows and position change in one transaction, so whatever happens to the process, a batch is in the file as a whole or not at
all. Readers have connections of their own and see the last committed state; they never wait for the fold.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import duckdb

from pullonce.errors import PullonceError
from pullonce.failpoints import reach
from pullonce.store.disk import disk_errors
from services.ledger.fold import statements
from services.ledger.fold.migrations import migration
from services.ledger.fold.staging import Staged
from services.ledger.fold.tables import VERSION
from services.ledger.fold.views import create_all

log = logging.getLogger(__name__)

MEMORY = "512MB"
"""What DuckDB may take; beyond it, big queries spill to the disk."""

SPILLS = 4
"""How many times that may lie on the disk."""

_LONGEST_LINE = 4 << 20
"""Bytes of one staged row: a message of the bus is shorter."""


class LedgerTaken(PullonceError):
    """Another process has the file open."""


class LedgerOutdated(PullonceError):
    """The file has tables that this version of pullonce does not know: those of a later one."""


class Ledger:
    """An open ledger. Fold from one thread at a time; `reader` from any.

    Args:
        path: the file; made if it is missing.
        memory: DuckDB's limit.
        sealed: no SQL that is given to this process can touch any file, nor change a setting.

    Raises:
        LedgerTaken: another process has the file open.
        LedgerOutdated: it has the tables of a later version.
        duckdb.Error: it cannot be read.
        Permanent: its directory cannot be written.
    """

    def __init__(self, path: Path, *, memory: str = MEMORY, sealed: bool = True) -> None:
        self.path = path
        self.memory = memory
        self.exports = path.parent / "export"
        with disk_errors(self.exports):
            self.exports.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "temp_directory": str(path.with_suffix(".tmp")),
            "max_temp_directory_size": f"{SPILLS * int(memory.removesuffix('MB'))}MB",
            # Else a name in a query that no table has may be one of a variable of ours.
            "python_enable_replacements": False,
        }
        try:
            self._writer = duckdb.connect(str(path), config=settings)
        except duckdb.IOException as exc:
            if _is_locked(path):
                raise LedgerTaken(f"{path} is open in another process") from exc
            raise
        try:
            self._prepare(new, sealed)
        except BaseException:
            self._writer.close()
            raise

    def _prepare(self, new: bool, sealed: bool) -> None:
        tables = self._writer.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'position'").fetchall()
        if new or not tables[0][0]:
            with self.transaction():
                self._writer.execute(create_all())
        found = self._writer.execute("SELECT version FROM position").fetchall()
        if found != [(VERSION,)]:
            self._migrate(int(found[0][0]) if found else 0)
        self._writer.execute(statements.STAGE)
        self._writer.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        if sealed:
            self._writer.execute("SET enable_external_access = false")
            self._writer.execute("SET lock_configuration = true")

    def _migrate(self, found: int) -> None:
        """Bring the tables of an earlier version to this one; whatever happens meanwhile, they are the one or the other."""
        statements = migration(found)
        if statements is None:
            raise LedgerOutdated(
                f"{self.path} has tables of version {found}, this one knows up to {VERSION}: a later pullonce wrote it"
            )
        with self.transaction():
            self._writer.execute(statements)
        log.info("the tables were brought from version %d to %d", found, VERSION)

    @property
    def position(self) -> int:
        """Sequence of the last folded event; 0 on an empty ledger."""
        found = self._writer.execute("SELECT sequence FROM position").fetchone()
        assert found is not None, "the position is written with the tables"
        return int(found[0])

    @property
    def to_work_in(self) -> int:
        """Bytes that lie beside the file, committed, until DuckDB writes them into it: at 16 MB, and when it is closed."""
        try:
            return self.path.with_name(self.path.name + ".wal").stat().st_size
        except FileNotFoundError:
            return 0

    def has_before(self, moment: datetime) -> bool:
        """Whether a flight ended before a moment of which there is detail."""
        found = self._writer.execute("SELECT coalesce(min(ended_at) < ?, false) FROM ended_flights", [moment]).fetchall()
        return bool(found[0][0])

    def fold(self, rows: Iterable[Staged]) -> None:
        """Fold a batch, in the order of the log, and commit. What was folded before is passed over.

        Raises:
            duckdb.Error: nothing of the batch is in the file.
        """
        position = self.position
        fresh = [row for row in rows if row[0] > position]
        if not fresh:
            return
        with self.transaction():
            appender = self._writer.appender("stage")
            appender.append_rows(fresh)
            appender.flush()
            reach("fold.staged")
            self._fold({row[2] for row in fresh})
            reach("fold.made")
        reach("fold.committed")

    def load(self, lines: Path) -> None:
        """Fold a file of NDJSON (`staging.line`) and commit: the way to fold millions. Not for a sealed ledger."""
        with self.transaction():
            self._writer.execute(
                "INSERT INTO stage SELECT sequence, micros, kind, body FROM read_json(?, format = 'newline_delimited', "
                "columns = {sequence: 'BIGINT', micros: 'BIGINT', kind: 'VARCHAR', body: 'JSON'}, "
                f"maximum_object_size = {_LONGEST_LINE}) WHERE sequence > {self.position}",
                [str(lines)],
            )
            reach("rebuild.loaded")
            self._fold({kind for (kind,) in self._writer.execute("SELECT DISTINCT kind FROM stage").fetchall()})

    def _fold(self, kinds: set[str]) -> None:
        for step in statements.STEPS:
            if kinds and step.concerns(kinds):
                for statement in step.statements:
                    self._writer.execute(statement)
        self._writer.execute("DELETE FROM stage")

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Everything in the body of the `with`, on the writing connection, or nothing."""
        self._writer.execute("BEGIN TRANSACTION")
        try:
            yield self._writer
        except BaseException:
            with suppress(duckdb.FatalException):  # there is nothing left to roll back
                self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")

    def execute(self, statement: str) -> None:
        """Carry out one of our own statements, on the connection that writes."""
        self._writer.execute(statement)

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A connection for one query or several, from one thread at a time; close it in the end."""
        return self._writer.cursor()

    def checkpoint(self) -> None:
        """Write everything into the one file. Closing does so too, and says nothing where the disk does not take it.

        Raises:
            duckdb.Error: what lies beside the file is needed still.
        """
        self._writer.execute("CHECKPOINT")

    def close(self) -> None:
        """Write everything into the one file and close it. Readers must be closed before."""
        self._writer.close()


def _is_locked(path: Path) -> bool:
    """Whether another process has the file open; DuckDB holds a record lock on it (fcntl)."""
    with disk_errors(path), path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

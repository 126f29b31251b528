"""The one open ledger of this process, and whose turn it is: one thread writes, several read, and it can be exchanged."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from pullonce.failpoints import reach
from services.ledger.fold.guests import Guests
from services.ledger.fold.projection import Ledger, LedgerOutdated
from services.ledger.fold.trouble import trouble

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 4
"""Questions of our own making that are answered at a time: the page's, the command line's. Further ones wait."""


class LedgerFile:
    """Holds the ledger. `write` and `read` run in threads, and a reader never waits for a writer.

    Args:
        path: the file. One that cannot be read is put aside, since everything in it comes from the log.
        memory: DuckDB's limit.

    Raises:
        Permanent: the disk is full, read-only or forbidden. Then nothing is wrong with the file.
    """

    def __init__(self, path: Path, *, memory: str) -> None:
        self.path = path
        self._memory = memory
        self._turns = threading.Condition()
        self._reading = 0
        self._exchanging = False
        self._writers = ThreadPoolExecutor(1, "ledger-write")
        self._readers = ThreadPoolExecutor(READERS, "ledger-read")
        self._guests = Guests()
        self._ledger = self._open()

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def _open(self) -> Ledger:
        try:
            return Ledger(self.path, memory=self._memory)
        except (LedgerOutdated, duckdb.Error) as exc:
            refused = trouble(exc) if isinstance(exc, duckdb.Error) else None
            if refused is not None and refused.code != "disk.damaged":
                raise refused from exc
            aside = self.put_aside()
            log.error("the ledger cannot be read; it is made anew from the log: %s", exc, extra={"aside": str(aside)})
            return Ledger(self.path, memory=self._memory)

    def put_aside(self) -> Path:
        """Rename a closed file, and what belongs to it, to a name that is free."""
        number = 1
        while (aside := self.path.with_suffix(f".aside-{number}{self.path.suffix}")).exists():
            number += 1
        if self.path.exists():
            self.path.rename(aside)
        wal = self.path.with_name(self.path.name + ".wal")
        if wal.exists():
            wal.rename(aside.with_name(aside.name + ".wal"))
        return aside

    async def write(self, change: Callable[[Ledger], T]) -> T:
        """Run something that writes, after whatever else does. Cancellation does not interrupt it."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, self._write, change)

    def _write(self, change: Callable[[Ledger], T]) -> T:
        try:
            return self._with_memory(lambda: change(self._ledger))
        except duckdb.FatalException:
            # A checkpoint that the disk refused; nothing can be read any more, though all that was committed is there.
            self._exchange(lambda _: None)
            raise

    async def read(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run something of our own that only reads, on a connection of its own."""

        def ask() -> T:
            with self.reader() as reader:
                return question(reader)

        return await asyncio.get_running_loop().run_in_executor(
            self._readers, lambda: self._ask(lambda: self._with_memory(ask))
        )

    async def read_for_guest(self, query: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Run a query in somebody else's words. It is interrupted where our own work finds no memory beside it.

        Raises:
            Permanent: `sql.busy`: too many are there.
        """

        def ask() -> T:
            with self.reader() as reader, self._guests.running(reader):
                return query(reader)

        return await self._guests.run(lambda: self._ask(ask))

    def _ask(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except duckdb.FatalException:
            self._writers.submit(lambda: None).result()  # whoever wrote has opened the ledger again by then
            return ask()

    def _with_memory(self, act: Callable[[], T]) -> T:
        """Do our own work; where there is no memory for it, end what guests run, and do it again."""
        try:
            return act()
        except duckdb.OutOfMemoryException:
            if not self._guests.send_away():
                raise
            return act()

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for the body of the `with`; waits while the ledger is being exchanged."""
        with self._turns:
            self._turns.wait_for(lambda: not self._exchanging)
            self._reading += 1
        try:
            connection = self._ledger.reader()
            try:
                yield connection
            finally:
                connection.close()
        finally:
            with self._turns:
                self._reading -= 1
                self._turns.notify_all()

    async def exchange(self, change: Callable[[Path], None]) -> None:
        """Close the ledger, let `change` do with its file what it will, and open it again. Questions wait meanwhile."""
        await asyncio.get_running_loop().run_in_executor(self._writers, self._exchange, change)

    def _exchange(self, change: Callable[[Path], None]) -> None:
        with self._turns:
            self._exchanging = True
        self._guests.send_away()
        with self._turns:
            self._turns.wait_for(lambda: not self._reading)
        try:
            self._ledger.close()
            reach("exchange.closed")
            try:
                change(self.path)
            finally:
                self._ledger = self._open()
        finally:
            with self._turns:
                self._exchanging = False
                self._turns.notify_all()

    def close(self) -> None:
        """Wait for whoever is at work, and close the file."""
        self._writers.shutdown()
        self._readers.shutdown()
        self._guests.close()
        self._ledger.close()

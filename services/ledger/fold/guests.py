"""Queries in other people's words: threads of their own, so many at a time, so many in line, and an end when we need room."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import duckdb

from pullonce.errors import Permanent

T = TypeVar("T")

GUESTS = 2
"""Queries in other people's words that run at a time. Our own questions share no thread with them."""

QUEUE = 16
"""Such queries that may be there, running or waiting; more are refused."""

_LEAVING = 5.0
"""Seconds that an interrupted query gets to give its memory back."""

_AGAIN = 0.05


class Guests:
    """Runs queries of others."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(GUESTS, "ledger-guest")
        self._there = 0
        self._turns = threading.Condition()
        self._running: set[duckdb.DuckDBPyConnection] = set()

    async def run(self, query: Callable[[], T]) -> T:
        """Run it when its turn comes.

        Raises:
            Permanent: `sql.busy`: too many are there.
        """
        if self._there >= QUEUE:
            told = f"{QUEUE} queries are running or waiting already; ask again later"
            raise Permanent(told, code="sql.busy", concerns="nobody")
        self._there += 1
        # Whoever asked may leave; the thread does not, so the place is given back when it is free.
        asked = asyncio.get_running_loop().run_in_executor(self._threads, query)
        asked.add_done_callback(self._left)
        return await asyncio.shield(asked)

    def _left(self, asked: asyncio.Future[T]) -> None:
        self._there -= 1
        if not asked.cancelled():
            asked.exception()

    @contextmanager
    def running(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """A query runs on this connection for the body of the `with`."""
        with self._turns:
            self._running.add(connection)
        try:
            yield
        finally:
            with self._turns:
                self._running.discard(connection)
                self._turns.notify_all()

    def send_away(self, within: float = _LEAVING) -> bool:
        """Interrupt what runs, and wait until it has given back what it holds. Returns whether anything ran."""
        with self._turns:
            leaving, end = set(self._running), time.monotonic() + within
            while not leaving.isdisjoint(self._running) and time.monotonic() < end:
                for connection in leaving & self._running:
                    connection.interrupt()  # again and again: between two statements nobody hears it
                self._turns.wait(_AGAIN)
        return bool(leaving)

    def close(self) -> None:
        """Interrupt what runs, drop what waits, and wait for the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.send_away(within=math.inf)
        self._threads.shutdown()

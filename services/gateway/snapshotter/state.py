"""All records on the disk: a database of sqlite, written by one thread. What waits there is written in one transaction.

A record that a container depends on is synced before anybody is told of it, as containerd syncs its own. A removal is not: one
that a power cut undoes is asked for again, since containerd's collector compares what there is with what it wants.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pullonce.errors import PullonceError
from services.gateway.snapshotter.records import Record

_SCHEMA = """
CREATE TABLE IF NOT EXISTS snapshots (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unlisting (reference TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class StateUnusable(PullonceError):
    """The records cannot be read or written; the message says why."""


@dataclass(slots=True)
class Change:
    """Records that are put and dropped together."""

    put: Sequence[Record] = ()
    drop: Sequence[str] = ()
    unlist: Sequence[str] = ()
    """References that are to be taken off the store's list of images."""
    unlisted: Sequence[str] = ()
    """Those that need not be any more."""
    sync: bool = True


@dataclass(slots=True)
class _Waiting:
    change: Change
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class SnapshotterState:
    """The records of one store. `open` first, `close` last.

    Args:
        path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def open(self) -> tuple[list[Record], list[str]]:
        """Begin to write; returns all records, and the references that are still to be taken off the list.

        Raises:
            StateUnusable: it is damaged, of a later version, or the disk refuses.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = self._connect()
            try:
                database.executescript(_SCHEMA)
                rows = database.execute("SELECT record FROM snapshots").fetchall()
                unlisting = [str(each) for (each,) in database.execute("SELECT reference FROM unlisting")]
            finally:
                database.close()
            records = [_decode(body) for (body,) in rows]
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as exc:
            raise StateUnusable(
                f"the snapshotter's records in {self._path} cannot be used: {exc}; make it readable, or move it away "
                "and remove containerd's images and containers of this snapshotter"
            ) from exc
        self._thread = threading.Thread(target=self._write_for_ever, name="snapshots", daemon=True)
        self._thread.start()
        return records, unlisting

    def close(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    async def write(self, change: Change) -> None:
        """Write a change; it is on the disk when this returns, where it is to be synced.

        Raises:
            StateUnusable: the disk refuses; nothing was written.
        """
        # Whoever called may leave; what was begun goes on, so that memory and disk say the same.
        await asyncio.shield(self.submit(change))

    def submit(self, change: Change) -> asyncio.Future[None]:
        """The same without waiting; changes are written in the order in which they are handed in."""
        waiting = _Waiting(change)
        self._queue.put(waiting)
        return waiting.done

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        return database

    def _write_for_ever(self) -> None:
        database = self._connect()
        try:
            while (first := self._queue.get()) is not None:
                batch, last = self._gather(first)
                self._commit(database, batch)
                if last:
                    return
        finally:
            database.close()

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        """All that waits, and whether it is the last."""
        batch = [first]
        while not self._queue.empty():
            waiting = self._queue.get()
            if waiting is None:
                return batch, True
            batch.append(waiting)
        return batch, False

    def _commit(self, database: sqlite3.Connection, batch: list[_Waiting]) -> None:
        error: StateUnusable | None = None
        try:
            level = "FULL" if any(each.change.sync for each in batch) else "NORMAL"
            database.execute(f"PRAGMA synchronous={level}")
            database.execute("BEGIN IMMEDIATE")
            for each in batch:
                _apply(database, each.change)
            database.execute("COMMIT")
        except sqlite3.Error as exc:
            if database.in_transaction:
                database.execute("ROLLBACK")
            error = StateUnusable(f"the snapshotter's records cannot be written to {self._path}: {exc}")
        for each in batch:
            each.done.get_loop().call_soon_threadsafe(_tell, each.done, error)


def _apply(database: sqlite3.Connection, change: Change) -> None:
    rows = [(each.name, _encode(each)) for each in change.put]
    database.executemany("DELETE FROM snapshots WHERE name = ?", [(each,) for each in change.drop])
    database.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", rows)
    database.executemany("INSERT OR IGNORE INTO unlisting VALUES (?)", [(each,) for each in change.unlist])
    database.executemany("DELETE FROM unlisting WHERE reference = ?", [(each,) for each in change.unlisted])


def _tell(done: asyncio.Future[None], error: StateUnusable | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)

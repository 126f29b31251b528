"""Who has proved access to which repository, and until when: what lies in a store was given to somebody, not to everybody.

    access.sqlite   by repository and fingerprint; for isolated content, by blob as well
    access.key      the key of the fingerprints; secrets are never stored

Losing either costs one request to the registry for each credential and repository, and nothing else, so nothing here is
synced and nothing fails by it. Several processes share it.
"""

import hmac
import json
import logging
import os
import secrets
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from pullonce.store.layout import Layout
from schemas.oci import Descriptor

ANYBODY = "anybody"
"""In place of a fingerprint: access was given to who showed nothing."""
DELIVERED = "delivered"
"""In place of a fingerprint, of a registry in place of a repository: it has sent this content, and it was verified."""
log = logging.getLogger(__name__)

_FOREVER = float("inf")
_MOST = 200_000
_MOST_NOTED = 1000
_PRUNED_EVERY = 1000
"""Notes after which what does not count any more is taken out of the file."""
_KEY_LENGTH = 32
_PATIENCE = 0.2
"""Seconds to wait for another process that writes; whoever waits longer goes without."""
_JUST_NOW = 1.0
"""Seconds after which a proof is looked at again: the layers of an image prove the same, one right after the other."""
_VERSION = 1
"""Of the file; 0 where none is written."""
_TABLES = """
CREATE TABLE IF NOT EXISTS proofs (
    repository TEXT, whom TEXT, what TEXT, until REAL, PRIMARY KEY (repository, whom, what)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS resolved (
    reference TEXT, whom TEXT, descriptor BLOB, at REAL, PRIMARY KEY (reference, whom)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS resolved_by_whom ON resolved (whom);
"""


class Proofs:
    """The proofs of one store.

    Args:
        root: the store's directory.
        lifetime: seconds for which a proof of access to a repository counts.
    """

    def __init__(self, root: Path, *, lifetime: float = 86_400.0) -> None:
        self._path = Layout(root).access
        self._key_path = Layout(root).access_key
        self._lifetime = lifetime
        self._key = b""
        self._connected: tuple[int, sqlite3.Connection] | None = None
        self._written = 0
        self._noted: dict[tuple[str, str], float] = {}
        """Access to repositories that was seen in the file, or put there, and when, on the monotonic clock."""

    def fingerprint(self, *parts: str | None) -> str:
        """A name for whoever shows these parts, which tells nothing of them without the key."""
        self._key = self._key or _key(self._key_path)
        return hmac.new(self._key, json.dumps(parts).encode(), "sha256").hexdigest()[:32]

    def prove(self, repository: str, whom: str, what: str = "") -> None:
        """Access was given just now.

        Args:
            repository: `registry/repository`; of what was `DELIVERED`, the registry.
            what: digest of the content that it was given to; empty: to the repository. What is content stays for good.
        """
        # Most requests prove what was proved a moment ago. Nobody is given anything by what is remembered here.
        if not what and self._just_noted(repository, whom):
            return
        until = _FOREVER if what else time.time() + self._lifetime
        if self._until(repository, whom, what) < until - self._lifetime / 10:
            self._write("INSERT OR REPLACE INTO proofs VALUES (?, ?, ?, ?)", repository, whom, what, until)

    def give_to_all(self, repository: str, digest: str) -> None:
        """Everybody of this store may have an image: the operator put it there, and no registry need be asked.

        Args:
            digest: what its reference names.
        """
        self._write("INSERT OR REPLACE INTO proofs VALUES (?, ?, ?, ?)", repository, ANYBODY, digest, _FOREVER)

    def proved(self, repository: str, whom: str, what: str = "") -> bool:
        """Whether access was proved, and that still counts."""
        return self._until(repository, whom, what) > time.time()

    def left(self, repository: str, whom: str) -> float:
        """Seconds for which a proof of access still counts; 0: there is none."""
        return max(0.0, self._until(repository, whom, "") - time.time())

    def withdraw(self, repository: str, whom: str) -> None:
        """Access was refused: what was proved before does not count any more.

        Nor does it that anybody had access, until it is given without a secret again. What an operator gave to all stays.
        """
        self._noted.pop((repository, whom), None)
        self._noted.pop((repository, ANYBODY), None)
        self._write("DELETE FROM proofs WHERE repository = ? AND whom = ?", repository, whom)
        self._write("DELETE FROM proofs WHERE repository = ? AND whom = ? AND what = ''", repository, ANYBODY)
        self._write("DELETE FROM resolved WHERE whom = ? AND substr(reference, 1, length(?2)) = ?2", whom, repository)

    def note_resolved(self, reference: str, whom: str, named: Descriptor) -> None:
        """What a reference names, as the registry told somebody just now."""
        self._write(
            "INSERT OR REPLACE INTO resolved VALUES (?, ?, ?, ?)", reference, whom, msgspec.json.encode(named), time.time()
        )

    def resolved(self, reference: str, whom: str, within: float) -> Descriptor | None:
        """What the registry told the same one so many seconds ago at most; None: it did not."""
        for descriptor, at in self._read(
            "SELECT descriptor, at FROM resolved WHERE reference = ? AND whom = ?", reference, whom
        ):
            if 0 <= time.time() - at <= within:
                with suppress(msgspec.MsgspecError):
                    return msgspec.json.decode(descriptor, type=Descriptor)
        return None

    def close(self) -> None:
        """Let go of the file."""
        if self._connected:
            self._connected[1].close()
            self._connected = None
        self._noted.clear()

    def _just_noted(self, repository: str, whom: str) -> bool:
        """Whether a proof of access was noted a moment ago. If not, it is about to be."""
        now, noted = time.monotonic(), self._noted.get((repository, whom))
        if noted is not None and now - noted < min(_JUST_NOW, self._lifetime / 10):
            return True
        if len(self._noted) >= _MOST_NOTED:
            self._noted.clear()
        self._noted[repository, whom] = now
        return False

    def _until(self, repository: str, whom: str, what: str) -> float:
        words = "SELECT until FROM proofs WHERE repository = ? AND whom = ? AND what = ?"
        return max((float(until) for (until,) in self._read(words, repository, whom, what)), default=0.0)

    def _read(self, words: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection().execute(words, values).fetchall()
        except sqlite3.Error as exc:
            self._doubt(exc)
            return []

    def _write(self, words: str, *values: object) -> None:
        try:
            with self._connection() as connection:
                connection.execute(words, values)
                self._written += 1
                if self._written % _PRUNED_EVERY == 0:
                    _prune(connection)
        except sqlite3.Error as exc:
            self._doubt(exc)

    def _connection(self) -> sqlite3.Connection:
        """To the file that is there now: a store may be wiped under us."""
        inode = _inode(self._path)
        if self._connected is None or inode != self._connected[0]:
            self.close()
            with suppress(OSError):
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
                _give(self._path)
            connection = sqlite3.connect(self._path, timeout=_PATIENCE, check_same_thread=False)
            self._connected = (_inode(self._path), connection)
            connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {_TABLES}")
            with connection:
                _migrate(connection)
                _prune(connection)
        return self._connected[1]

    def _doubt(self, exc: sqlite3.Error) -> None:
        """A damaged file begins anew; a full disk, or a writer that takes long, costs what could not be noted."""
        self.close()
        if isinstance(exc, sqlite3.DatabaseError) and not isinstance(exc, sqlite3.OperationalError):
            for end in ("", "-wal", "-shm"):
                with suppress(OSError):
                    Path(f"{self._path}{end}").unlink()


def _migrate(connection: sqlite3.Connection) -> None:
    """Forget what everybody may have by an older version: it took what a header of `hosts.toml` opens for public."""
    if connection.execute("PRAGMA user_version").fetchone()[0] < _VERSION:
        connection.execute("DELETE FROM proofs WHERE whom = ? AND what = ''", (ANYBODY,))
        connection.execute(f"PRAGMA user_version = {_VERSION}")


def _prune(connection: sqlite3.Connection) -> None:
    """Take out what has ended, and the oldest of what is too much. What is content stays."""
    now = time.time()
    connection.execute("DELETE FROM proofs WHERE until < ?", (now,))
    connection.execute("DELETE FROM resolved WHERE at < ?", (now - 3600.0,))
    for table, when, which in (("proofs", "until", "what = ''"), ("resolved", "at", "TRUE")):
        newest = f"SELECT {when} FROM {table} WHERE {which} ORDER BY {when} DESC LIMIT 1 OFFSET ?"
        connection.execute(f"DELETE FROM {table} WHERE {which} AND {when} <= ({newest})", (_MOST,))


def _give(path: Path) -> None:
    """To whom the store belongs: root may be the first who comes, and the services are somebody else."""
    owner = path.parent.stat()
    if os.geteuid() == 0 and path.stat().st_uid != owner.st_uid:
        try:
            os.chown(path, owner.st_uid, owner.st_gid)
        except OSError as exc:
            log.warning("%s stays root's, and the services of the store cannot open it: %s", path, exc.strerror)
            raise


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _key(path: Path) -> bytes:
    """The key, made at its first use and where it is damaged; one of this process alone where none can be kept."""
    with suppress(OSError):
        made = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        damaged = path.exists() and path.stat().st_size != _KEY_LENGTH
        if damaged or not path.exists():
            try:
                descriptor = os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
                with open(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(_KEY_LENGTH))
                _give(made)
                if damaged:
                    made.replace(path)
                else:
                    with suppress(FileExistsError):
                        os.link(made, path)
            finally:
                made.unlink(missing_ok=True)
        if len(key := path.read_bytes()) == _KEY_LENGTH:
            return key
    return secrets.token_bytes(_KEY_LENGTH)

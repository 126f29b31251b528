"""What DuckDB says of a disk that refuses, as the errors that all of pullonce has for it.

DuckDB hands on what the operating system said as text, in errors of several types. The one that comes out of a checkpoint
(`duckdb.FatalException`) takes the open database with it: it must be opened again, by `file.Shelf`, before anybody reads.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import duckdb

from pullonce.errors import Permanent
from pullonce.store.disk import disk_errors

_NUMBERS = {
    os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
}
_SAID = re.compile(rf'file \\?"([^"\n\\]+)\\?".*?: ({"|".join(map(re.escape, _NUMBERS))})(?="|$)', re.MULTILINE)
"""The quotes are escaped where one error tells another as JSON."""
_KINDS = (duckdb.IOException, duckdb.TransactionException, duckdb.FatalException)
"""Errors of other types may end in the words of somebody who asked."""


def trouble(error: duckdb.Error, needed: int = 0) -> Permanent | None:
    """What keeps the ledger from being written, until somebody makes room or gives it back; None where it is something else.

    Args:
        needed: bytes that were about to be written.

    Returns:
        `disk.full`, `disk.readonly`, `disk.denied` or `disk.damaged`; `ledger.memory` where other queries have it all.
    """
    if isinstance(error, duckdb.OutOfMemoryException):
        return Permanent(" ".join(str(error).split()), code="ledger.memory", concerns="nobody")
    if not isinstance(error, _KINDS) or (found := _SAID.search(str(error))) is None:
        return None
    try:
        with disk_errors(Path(found[1]), needed):
            raise OSError(_NUMBERS[found[2]], found[2])
    except Permanent as exc:
        return exc

"""A ledger's life in a process of its own: `python -m tests.support.ledger_life FILE`. It folds, rolls up what is old, is made
anew, and folds the rest, so that a test can end it at each of `pullonce.failpoints.LEDGER_STEPS`."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from services.ledger.fold import archive, rebuild
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.staging import Staged, stage
from tests.support.ledgers import loaded
from tests.support.long_log import long_log

LATER = datetime(2023, 11, 17, tzinfo=UTC)
"""Two days of the log lie before it."""


def log() -> list[Staged]:
    """Three and a half days."""
    return [stage(*each) for each in long_log(500, gap=600.0)]


async def live(path: Path) -> None:
    """From wherever an earlier life ended."""
    staged = log()
    shelf = LedgerFile(path, memory="256MB")
    try:
        await shelf.write(lambda ledger: ledger.fold(staged[:200]))
        await shelf.write(lambda ledger: ledger.fold(staged[:400]))
        await shelf.write(lambda ledger: archive.export(ledger, LATER, roll_up=True, now=datetime.now(UTC)))
        made = path.with_name(f"{rebuild.NAME}.duckdb")
        rebuild.clear(path.parent)
        loaded(made, staged[:400]).close()
        made.with_suffix(".ndjson").unlink()
        await shelf.exchange(lambda old: rebuild.replace(old, made))
        await shelf.write(lambda ledger: ledger.fold(staged))
    finally:
        shelf.close()


if __name__ == "__main__":
    asyncio.run(live(Path(sys.argv[1])))

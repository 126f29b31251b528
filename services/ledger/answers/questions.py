"""Question → answer, whichever way it came: over the bus or over HTTP."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import duckdb

from pullonce.errors import Permanent
from schemas.ledger import (
    Answer,
    AskExplain,
    AskExport,
    AskHistory,
    AskRebuild,
    AskSql,
    AskStats,
    Done,
    Error,
    Explanation,
    Question,
    decode_question,
    encode,
)
from schemas.malformed import Malformed
from services.ledger.answers import explaining, queries, sandbox
from services.ledger.answers.live import Live
from services.ledger.answers.queries import NoAnswer
from services.ledger.fold import archive
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.trouble import trouble

log = logging.getLogger(__name__)

_LONGEST = 500 << 10
"""Bytes of an answer over the bus, which takes no message above 512 KiB."""

Rebuild = Callable[[], Awaitable[Done]]
Ask = Callable[[str], Awaitable[None]]


class Questions:
    """Answers questions about one file.

    Args:
        live: what was heard of work under way.
        rebuild: makes the ledger anew.
        ask: asks the workers of a store how far they are, for `live` to hear.
    """

    def __init__(self, file: LedgerFile, live: Live, rebuild: Rebuild, ask: Ask) -> None:
        self._file = file
        self._live = live
        self._rebuild = rebuild
        self._ask = ask

    async def answer_encoded(self, body: bytes) -> bytes:
        """A question as it came over the bus → what goes back. Never raises on account of the question."""
        try:
            question = decode_question(body)
        except Malformed as exc:
            return encode(Error(code="question.invalid", message=str(exc)))
        said = encode(await self.answer(question))
        if len(said) > _LONGEST:
            return encode(
                Error(code="answer.too-large", message="the answer does not fit into one message; ask for fewer rows")
            )
        return said

    async def answer(self, question: Question) -> Answer:
        """Answer, if need be by an Error."""
        try:
            return await self._answer(question)
        except NoAnswer as exc:
            return Error(code=exc.code, message=str(exc))
        except Permanent as exc:
            return Error(code=exc.code, message=str(exc))
        except Exception as exc:
            if isinstance(exc, duckdb.Error) and (refused := trouble(exc)):
                return Error(code=refused.code, message=str(refused))
            # Whoever asked would wait for nothing; the traceback is for us.
            log.exception("a question could not be answered", extra={"question": repr(question)})
            return Error(code="ledger.defect", message=f"{type(exc).__name__}; the ledger's log says more")

    async def _answer(self, question: Question) -> Answer:
        match question:
            case AskHistory():
                return await self._file.read(lambda reader: queries.history(reader, question))
            case AskStats():
                return await self._file.read(lambda reader: queries.stats(reader, question))
            case AskExplain(pull=pull):
                return await self._explain(pull)
            case AskSql():
                return await self._file.read_for_guest(lambda reader: sandbox.run(reader, question))
            case AskExport():
                return await self._export(question)
            case AskRebuild():
                return await self._rebuild()
            case _:
                return Error(code="question.invalid", message=f"nobody answers a {type(question).__name__}")

    async def _explain(self, pull: str) -> Answer:
        def explained(reader: duckdb.DuckDBPyConnection) -> Explanation:
            return explaining.explain(reader, pull, self._live, time.time())

        found = await self._file.read(explained)
        if found.pull.ended is not None:
            return found
        # What workers said while this ledger was not there, they still know.
        await self._ask(found.pull.store)
        return await self._file.read(explained)

    async def _export(self, question: AskExport) -> Done:
        if question.roll_up and question.before is None:
            raise NoAnswer("what is to be rolled up? Say before which day", code="question.invalid")
        began, now = time.monotonic(), datetime.now(UTC)
        directory, count = await self._file.write(
            lambda ledger: archive.export(ledger, question.before, roll_up=question.roll_up, now=now)
        )
        log.info("exported", extra={"directory": str(directory), "rows": count, "rolled_up": question.roll_up})
        told = f"{count} rows in {directory}" + (", and rolled up to days" if question.roll_up else "")
        return Done(message=told, events=count, seconds=time.monotonic() - began)

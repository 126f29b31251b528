"""`pullonce history`, `stats`, `explain`, `sql` and `ledger`: what happened, why it took so long, what sharing saved.

Asked over the bus, so that these work wherever a pull works, and need neither an address nor a password of the ledger's own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pullonce.cli import units
from pullonce.client import connect
from pullonce.errors import LedgerRefused
from pullonce.printable import printable
from schemas.ledger import (
    Answer,
    AskExplain,
    AskExport,
    AskHistory,
    AskRebuild,
    AskSql,
    AskStats,
    Done,
    Explanation,
    Figures,
    Gap,
    History,
    Part,
    Piece,
    Pull,
    Question,
    Stats,
    Table,
    encode,
)

A = TypeVar("A", bound=Answer)

_PATIENCE = 60.0
_LONG_PATIENCE = 3600.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def history(args: argparse.Namespace) -> int:
    """Carry out `pullonce history`."""
    question = AskHistory(
        reference=args.reference, since=moment(args.since), failed=args.failed, search=args.search, limit=args.limit
    )

    def lines(answer: History) -> Iterable[str]:
        return [*_table(_HISTORY, map(_history_row, answer.pulls), "no pulls"), *_gaps(answer.gaps)]

    return _show(args, question, History, lines)


def stats(args: argparse.Namespace) -> int:
    """Carry out `pullonce stats`."""
    question = AskStats(by=args.by, reference=args.reference, since=moment(args.since), limit=args.limit)
    nothing = "all" if args.by == "all" else "-"
    titles = (args.by if args.by != "all" else "", *_STATS)

    def lines(answer: Stats) -> Iterable[str]:
        return [
            *_table(titles, (_stats_row(figures, nothing) for figures in answer.figures), "no pulls have ended"),
            *_gaps(answer.gaps),
        ]

    return _show(args, question, Stats, lines)


def explain(args: argparse.Namespace) -> int:
    """Carry out `pullonce explain`."""
    return _show(args, AskExplain(pull=args.pull), Explanation, _explained)


def sql(args: argparse.Namespace) -> int:
    """Carry out `pullonce sql`."""

    def lines(answer: Table) -> Iterable[str]:
        yield from _table(answer.columns, ([_cell(value) for value in row] for row in answer.rows), "no rows")
        if answer.truncated:
            print("pullonce: there are more rows; ask for fewer, or use `pullonce ledger export`", file=sys.stderr)

    return _show(args, AskSql(query=args.query, limit=min(args.limit, 10_000)), Table, lines)


def ledger(args: argparse.Namespace) -> int:
    """Carry out `pullonce ledger`."""
    question: Question = AskRebuild()
    if args.action == "export":
        question = AskExport(before=moment(args.before), roll_up=args.roll_up)
    return _show(args, question, Done, lambda answer: [f"{answer.message} ({_seconds(answer.seconds)})"], _LONG_PATIENCE)


def _show(
    args: argparse.Namespace,
    question: Question,
    kind: type[A],
    lines: Callable[[A], Iterable[str]],
    patience: float = _PATIENCE,
) -> int:
    """Ask, and print the answer for people or, with `--json`, as it is."""
    answer = asyncio.run(_ask(question, patience))
    if not isinstance(answer, kind):
        raise LedgerRefused("the ledger answers something else; is it of another version?", code="answer.unexpected")
    if args.json:
        print(encode(answer).decode())
    else:
        print("\n".join(lines(answer)))
    return 0


async def _ask(question: Question, patience: float) -> Answer:
    async with connect(name="pullonce ledger", patience=1.0) as client:
        return await client.ask(question, patience)


def moment(text: str, now: datetime | None = None) -> datetime | None:
    """A point in time as people write it: `90m` ago, a day or a time of their own time zone; None for nothing.

    Raises:
        LedgerRefused: it cannot be read.
    """
    if not text:
        return None
    try:
        if text[-1] in _UNITS and text[:-1].isdecimal():
            return (now or datetime.now(UTC)) - timedelta(seconds=int(text[:-1]) * _UNITS[text[-1]])
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise LedgerRefused(
            f"{text!r} is no time; expected 2h, 3d, 2026-11-24 or 2026-11-24T18:00", code="time.invalid"
        ) from None


# -- for people --------------------------------------------------------------------------------------------------------

_HISTORY = ("PULL", "WHEN", "IMAGE", "REQUESTS", "TOOK", "FETCHED", "REUSED", "OUTCOME", "DOOR", "BY")


def _history_row(pull: Pull) -> list[str]:
    others = f" and {pull.requests - 1} more" if pull.requests > 1 and pull.requesters else ""
    return [
        str(pull.opened),
        pull.opened_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        pull.reference,
        str(pull.requests),
        _seconds(pull.seconds),
        units.amount(pull.fetched_bytes),
        units.amount(pull.reused_bytes + pull.waited_bytes),
        pull.code or pull.outcome,
        ",".join(sorted(pull.doors)) or "-",
        (pull.requesters[0] if pull.requesters else "-") + others,
    ]


def _gaps(gaps: Iterable[Gap]) -> Iterable[str]:
    for gap in gaps:
        begin, end = (each.astimezone().strftime("%Y-%m-%d %H:%M:%S") for each in (gap.begin, gap.end))
        yield f"not known: up to {gap.missing} events between {begin} and {end}; the log had dropped them before they were read"


_STATS = ("FLIGHTS", "REQUESTS", "SHARING", "FAILED", "FETCHED", "SAVED", "P50", "P95", "P99", "RELEASE P50", "P95", "P99")


def _stats_row(figures: Figures, nothing: str) -> list[str]:
    return [
        figures.name or nothing,
        str(figures.flights),
        str(figures.requests),
        f"{figures.sharing:.1f}",
        str(figures.failed),
        units.amount(figures.fetched_bytes),
        units.amount(figures.saved_bytes),
        *map(_seconds, (figures.p50, figures.p95, figures.p99)),
        *map(_seconds, (figures.release_p50, figures.release_p95, figures.release_p99)),
    ]


def _explained(answer: Explanation) -> Iterable[str]:
    pull = answer.pull
    whose = f"request {answer.request}" if answer.request is not None else f"pull {pull.opened}"
    yield f"{whose}: {pull.reference} (store {pull.store}), {pull.outcome}, {_seconds(answer.wall)}, {pull.requests} requests"
    if pull.message:
        yield printable(f"{pull.code}: {pull.message}")
    yield from ("", "what was waited for, in order:")
    yield from _table(
        ("AT", "TOOK", "SHARE", "STEP", "WORK"),
        (_part_row(part, answer.wall) for part in answer.parts if part.seconds >= 0.0005),
        "nothing",
    )
    yield from ("", "all its work:")
    yield from _table(("WORK", "NAME", "STATE", "BEGAN", "ENDED", "STEPS", "REMARK"), map(_piece_row, answer.pieces), "none")
    if answer.advice:
        yield from ("", "what would make it faster:", *(f"  {line}" for line in answer.advice))


def _part_row(part: Part, wall: float) -> list[str]:
    whose = " (ordered by another pull)" if part.others else ""
    return [
        _seconds(part.begin),
        _seconds(part.seconds),
        f"{part.seconds / wall:.0%}" if wall else "-",
        part.step,
        f"{part.work} {_short(part.name)}".strip() + whose,
    ]


def _piece_row(piece: Piece) -> list[str]:
    steps = ", ".join(f"{step} {_seconds(spent)}" for step, spent in piece.steps.items() if spent >= 0.001)
    remarks = []
    if piece.others:
        remarks.append("ordered by another pull")
    if piece.state == "ordered" and piece.holder:
        since = f" since {_seconds(piece.ordered)}" if piece.ordered is not None else ""
        remarks.append(f"held by {piece.holder}{since}")
    if piece.doing:
        remarks.append(
            f"{piece.doing}, {units.amount(piece.progress)} of {units.amount(piece.size)}" if piece.size else piece.doing
        )
    if piece.worker:
        since = f" since {_seconds(piece.working)}" if piece.working is not None else ""
        remarks.append(f"attempt {piece.attempts + (piece.doing != 'retrying')} by {piece.worker}{since}")
    if piece.attempts:
        remarks.append(f"{piece.attempts} attempts failed: {piece.error}")
    return [
        piece.work,
        _short(piece.name) or "-",
        piece.state,
        _seconds(piece.begin),
        _seconds(piece.end),
        steps or "-",
        "; ".join(remarks) or "-",
    ]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> list[str]:
    """Columns as wide as they must be; what cannot be shown on a terminal is escaped."""
    shown = [[printable(cell) for cell in row] for row in (titles, *rows)]
    if len(shown) == 1:
        return [nothing]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _short(name: str) -> str:
    """`sha256:0123…` as far as people compare it."""
    algorithm, _, digits = name.partition(":")
    return f"{algorithm}:{digits[:12]}" if digits else name


def _seconds(value: float | None) -> str:
    return "-" if value is None else units.took(value)

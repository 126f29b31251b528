"""Questions about the pulls that there were."""

import argparse

from pullonce.cli.commands.arguments import Command, count


def _history(history: argparse.ArgumentParser) -> None:
    history.add_argument("reference", metavar="REF", nargs="?", default="", help="only pulls of this image")
    history.add_argument("--failed", action="store_true", help="only pulls that failed")
    history.add_argument(
        "--search",
        metavar="TEXT",
        default="",
        help="only pulls with this in their image's name, or in that of somebody who asked",
    )
    _since(history)
    _rows(history)


def _stats(stats: argparse.ArgumentParser) -> None:
    stats.add_argument("reference", metavar="REF", nargs="?", default="", help="only pulls of this image")
    groups = ("all", "image", "registry", "store", "door", "day", "hour")
    stats.add_argument("--by", choices=groups, default="all", help="one row a group (default: all together)")
    _since(stats)
    _rows(stats)


def _explain(explain: argparse.ArgumentParser) -> None:
    explain.add_argument("pull", metavar="PULL", help="an image (its latest pull), a flight, or the number of a request")
    explain.add_argument("--json", action="store_true", help="print JSON")


def _sql(sql: argparse.ArgumentParser) -> None:
    sql.add_argument("query", metavar="QUERY", help="one SELECT over the tables of docs/ledger.md")
    sql.add_argument("--limit", metavar="N", type=count, default=1000, help="rows at most (default 1000)")
    sql.add_argument("--json", action="store_true", help="print JSON")


def _ledger(ledger: argparse.ArgumentParser) -> None:
    ledger.add_argument(
        "action", choices=("rebuild", "export"),
        help="rebuild: make the tables anew from the log; export: write them as Parquet on the ledger's machine",
    )  # fmt: skip
    ledger.add_argument("--before", metavar="DAY", default="", help="export only what happened before that day")
    ledger.add_argument("--roll-up", action="store_true", help="then keep of it one row a day, store and image")
    ledger.add_argument("--json", action="store_true", help="print JSON")


def _since(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--since", metavar="WHEN", default="", help="from then on: 2h, 3d, 2026-11-24, 2026-11-24T18:00")


def _rows(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--limit", metavar="N", type=count, default=50, help="rows at most (default 50)")
    sub.add_argument("--json", action="store_true", help="print JSON")


COMMANDS = {
    "history": Command("list the pulls there were, the newest first", "ledger:history", _history),
    "stats": Command("show what was asked for, what it cost and how long it took", "ledger:stats", _stats),
    "explain": Command("tell where the time of a pull went, ended or not", "ledger:explain", _explain),
    "sql": Command("ask the ledger anything else, in SQL", "ledger:sql", _sql),
    "ledger": Command("rebuild the ledger from the log, or export it", "ledger:ledger", _ledger),
}

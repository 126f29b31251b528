"""`pullonce status` and `pullonce events`: what is in flight, and what has happened."""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pullonce.bus.ports import Recorded
from pullonce.client import connect
from pullonce.config import store_root
from pullonce.printable import printable
from pullonce.store.holds import Holds, HoldUnreadable, count
from schemas.events import Event, PullCompleted
from schemas.status import FlightStatus, Status, Waiting
from schemas.status import encode as encode_status


def status(args: argparse.Namespace) -> int:
    """Carry out `pullonce status`."""
    answer = asyncio.run(_status())
    held = _held(Path(args.home))
    if args.json:
        print(json.dumps({**json.loads(encode_status(answer)), **({"holds": held} if held else {})}))
        return 0
    if not answer.flights:
        print(f"nothing is in flight (log position {answer.position})")
    for flight in answer.flights:
        print("\n".join(_flight_lines(flight, time.time())))
    for store, holders in held.items():
        told = ", ".join(f"{number} for {holder}" for holder, number in holders.items())
        print(f"store {store} keeps, whatever is removed: {told}")
    return 0


def _held(home: Path) -> dict[str, dict[str, int]]:
    """Store → holder → what it was promised, of the stores on this machine that can be read."""
    found = {}
    for root in sorted(store_root(home, "any").parent.glob("*")):
        with contextlib.suppress(OSError, HoldUnreadable):
            found[root.name] = count(Holds(root).all())
    return {store: holders for store, holders in found.items() if holders}


async def _status() -> Status:
    async with connect(name="pullonce status", patience=1.0) as client:
        return await client.status()


def _flight_lines(flight: FlightStatus, now: float) -> list[str]:
    platform = f", {flight.platform}" if flight.platform else ""
    head = f"{flight.reference} (store {flight.store}{platform}): {flight.state}, asked for {flight.requests} times"
    return [printable(head), *(_waiting_line(each, now) for each in flight.waiting)]


def _waiting_line(waiting: Waiting, now: float) -> str:
    line = f"  {printable(waiting.key)}  {waiting.state}{' by ' + printable(waiting.holder) if waiting.holder else ''}"
    if waiting.worker:
        attempt = f", attempt {waiting.attempt}, for {max(now - waiting.since, 0.0):.1f} s" if waiting.attempt else ""
        line += f"; {waiting.doing} at {printable(waiting.worker)}{attempt}"
    return f"{line}: {printable(waiting.error)}" if waiting.error else line


def events(args: argparse.Namespace) -> int:
    """Carry out `pullonce events`."""
    write = _json_line if args.json else _readable_line
    asyncio.run(_events(write, since=args.since, follow=args.follow))
    return 0


async def _events(write: Callable[[Recorded], None], *, since: int, follow: bool) -> None:
    async with connect(name="pullonce events", patience=1.0) as client:
        end = await client.last_sequence()
        if end < since and not follow:
            return
        done = asyncio.Event()

        def apply(recorded: Recorded) -> None:
            if follow or recorded.sequence <= end:
                write(recorded)
            if recorded.pending == 0:
                sys.stdout.flush()
            if not follow and recorded.sequence >= end:
                done.set()

        following = asyncio.create_task(client.watch(apply, start=since, idle=None if follow else done.set))
        finished = asyncio.create_task(done.wait())
        try:
            await asyncio.wait((following, finished), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()  # an error, a closed pipe among them
        finally:
            for task in (following, finished):
                task.cancel()
            await asyncio.gather(following, finished, return_exceptions=True)


def _json_line(recorded: Recorded) -> None:
    line: dict[str, object] = {"sequence": recorded.sequence, "time": _utc(recorded.time), "subject": recorded.subject}
    if recorded.event is None:
        line["malformed"] = recorded.malformed
    else:
        line["event"] = msgspec.to_builtins(recorded.event)
    print(json.dumps(line, ensure_ascii=False))


def _readable_line(recorded: Recorded) -> None:
    if recorded.event is None:
        words = printable(f"{recorded.subject} malformed: {recorded.malformed}")
        print(f"{recorded.sequence:>8}  {_utc(recorded.time)}  {words}")
        return
    kind = str(recorded.event.__struct_config__.tag)
    print(f"{recorded.sequence:>8}  {_utc(recorded.time)}  {kind:<16}  {_told(recorded.event)}")


_NAMED = ("reference", "digest", "chain_id", "incarnation", "size", "code", "message", "holder")
"""Fields that a reader wants to see, in this order; `--json` shows all."""


def _told(event: Event) -> str:
    parts = [event.store]
    parts += [printable(str(getattr(event, name))) for name in _NAMED if getattr(event, name, "")]
    if isinstance(event, PullCompleted):
        parts.append(f"answers {event.sharing.requests} requests below {event.covers}")
    if getattr(event, "reused", False) is True:
        parts.append("reused")
    return "  ".join(parts)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"

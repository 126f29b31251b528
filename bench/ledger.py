"""What the ledger costs here: `./dev bench ledger [--events 10000000 --no-bus] [--out bench/results/ledger-….jsonl]`.

Makes a long log (tests/support/long_log.py), folds it as a rebuild does, asks the questions that the page asks, with a thousand
pulls in flight, lets a real keeper follow a real bus at 5,000 events a second and measures how far it lags, and rebuilds from
that bus. On files of its own, below TMPDIR.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import duckdb

sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec

from bench.tools.results import Row, keep
from pullonce.bus.nats.bus import connect
from pullonce.config import BusSettings
from schemas.events import BlobClaimed, LayerClaimed, PullRequested, PullResolved
from schemas.ledger import AskHistory, AskSql, AskStats
from schemas.routing import event_subject
from services.ledger.answers import active, explaining, queries, sandbox
from services.ledger.answers.live import Live
from services.ledger.fold.file import LedgerFile
from services.ledger.fold.keeper import Keeper
from services.ledger.fold.projection import Ledger
from services.ledger.fold.rebuild import CHUNK
from services.ledger.fold.staging import line, stage
from tests.support.long_log import IMAGES, long_log
from tests.support.nats_server import NatsServer

RATE = 5_000
SECONDS = 8
ON_THE_BUS = 1_000_000


ASKED = 15
"""Times that each question is asked."""
IN_THE_AIR = 1_000
PAGE = Path(__file__).parent.parent / "services" / "ledger" / "web" / "page"

said: list[Row] = []


def say(what: str, value: str, **figures: float) -> None:
    print(f"{what:<66} {value:>24}", flush=True)
    said.append({"what": what, "value": value} | figures)


def lines(events: int) -> Iterator[bytes]:
    return (line(*each) for each in long_log(events, gap=86_400 * 30 / events))


def build(home: Path, events: int) -> Ledger:
    """A ledger of so many events, made as a rebuild makes one; only the folds are timed."""
    ledger = Ledger(home / "ledger.duckdb", sealed=False)
    chunk, spent, worked, done = home / "chunk.ndjson", 0.0, 0.0, 0
    source = lines(events)
    while batch := list(islice(source, CHUNK)):
        chunk.write_bytes(b"".join(batch))
        began, at_work = time.perf_counter(), time.process_time()
        ledger.load(chunk)
        spent += time.perf_counter() - began
        worked += time.process_time() - at_work
        done += len(batch)
    chunk.unlink()
    take_off(ledger)
    say(f"fold of NDJSON, {done:,} events", f"{done / spent:,.0f} events/s")
    say("processor time of that, a million events", f"{worked / done * 1e6:.1f} s")
    began = time.perf_counter()
    ledger.execute("CHECKPOINT")
    say("checkpoint", f"{time.perf_counter() - began:.1f} s")
    size = (home / "ledger.duckdb").stat().st_size
    say("size of the file", f"{size / 1e6:,.0f} MB, {size / done:.0f} bytes an event")
    return ledger


def take_off(ledger: Ledger) -> None:
    """Put a thousand pulls into the air, all of whose layers are being fetched: as the end of the log, and not timed."""
    begun = (PullRequested, PullResolved, BlobClaimed, LayerClaimed)
    story = (event for _, _, event in long_log(IN_THE_AIR * 60, seed=2) if isinstance(event, begun))
    rows, pulls, before = [], 0, None
    for sequence, event in enumerate(story, ledger.position + 1):
        pulls += isinstance(event, PullRequested) and not isinstance(before, PullRequested)
        if pulls > IN_THE_AIR:
            break
        rows.append(stage(sequence, time.time(), event))
        before = event
    ledger.fold(rows)


def of_the_page(name: str, file: str) -> str:
    """A query as the page asks it."""
    found = re.search(rf"const {name} = `(.*?)`", (PAGE / file).read_text(), re.DOTALL)
    assert found is not None, f"{file} has no {name}"
    return found[1]


def look_at_the_air(reader: duckdb.DuckDBPyConnection) -> bytes:
    """What `/api/air` does when something has changed."""
    seen = active.activity_of(active.read(reader), Live())
    return msgspec.json.encode((tuple(seen.flights.values()), tuple(seen.works.values())))


def ask(ledger: Ledger) -> None:
    """The questions of the page, each asked several times: the median, and the worst of all."""
    reader = ledger.reader()
    image = reader.execute("SELECT max(reference) FROM ended_flights").fetchall()[0][0]
    halfway = "SELECT min(opened) FROM ended_flights WHERE fetched > 2 AND opened > (SELECT max(opened) / 2 FROM ended_flights)"
    some = reader.execute(halfway).fetchall()[0][0]
    questions: dict[str, Callable[[], object]] = {
        "history, the newest 50": lambda: queries.history(reader, AskHistory()),
        "history of one image": lambda: queries.history(reader, AskHistory(reference=image)),
        "history, failed": lambda: queries.history(reader, AskHistory(failed=True)),
        "history, search for a part of a name": lambda: queries.history(reader, AskHistory(search="app-17")),
        "history, search for one who asked": lambda: queries.history(reader, AskHistory(search="node-499/")),
        "history, search for what is not there": lambda: queries.history(reader, AskHistory(search="nowhere")),
        "failures by reason (sql)": lambda: sandbox.run(reader, AskSql(query=of_the_page("REASONS", "failures.js"))),
        "failed blobs and layers (sql)": lambda: sandbox.run(reader, AskSql(query=of_the_page("ATTEMPTS", "failures.js"))),
        f"/api/air, {len(active.read(reader).flights):,} flights in flight": lambda: look_at_the_air(reader),
        "stats, all": lambda: queries.stats(reader, AskStats()),
        f"stats by image (15 of {IMAGES:,})": lambda: queries.stats(reader, AskStats(by="image", limit=15)),
        "stats by registry": lambda: queries.stats(reader, AskStats(by="registry")),
        "stats by day": lambda: queries.stats(reader, AskStats(by="day")),
        "stats by hour": lambda: queries.stats(reader, AskStats(by="hour", limit=120)),
        "explain, the latest of an image": lambda: explaining.explain(reader, image, Live(), time.time()),
        "explain, an old request": lambda: explaining.explain(reader, str(some), Live(), time.time()),
        "sql: requests by requester": lambda: reader.execute(
            "SELECT requester, count(*) FROM requests GROUP BY 1 ORDER BY 2 DESC LIMIT 10"
        ).fetchall(),
    }
    worst = 0.0
    for what, question in questions.items():
        times, worked = [], []
        for _ in range(ASKED):
            began, at_work = time.perf_counter(), time.process_time()
            question()
            times.append(time.perf_counter() - began)
            worked.append(time.process_time() - at_work)
        middle, work, longest = median(times) * 1000, median(worked) * 1000, max(times) * 1000
        worst = max(worst, longest)
        say(f"{what}; of processor time", f"{middle:,.0f} ms; {work:,.0f} ms", median=middle, worst=longest, processor=work)
    say(f"the worst of these {ASKED * len(questions)} questions", f"{worst:,.0f} ms", worst=worst)
    reader.close()


async def follow(home: Path) -> None:
    """A bus under load, and a keeper that follows: how many events it is behind, and for how long."""
    server = await asyncio.to_thread(NatsServer(home / "nats").start)
    try:
        async with connect(BusSettings(url=server.url, name="bench"), patience=10) as bus:
            shelf = LedgerFile(home / "live" / "ledger.duckdb", memory="512MB")
            keeper = Keeper(bus.log, shelf)
            running = asyncio.create_task(keeper.run())
            publisher = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--publish", str(RATE * SECONDS), "--rate", str(RATE), "--url", server.url
            )
            await lag(keeper, publisher, shelf)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            shelf.close()
            await publish(bus, ON_THE_BUS, rate=0)
            last = await bus.log.last_sequence()
            await asyncio.to_thread(make_anew, server.url, home, last)
    finally:
        server.kill()


def make_anew(url: str, home: Path, events: int) -> None:
    """Let the process that a ledger starts for it make a file anew; its start is part of it."""
    command = [sys.executable, "-m", "services.ledger", "rebuild", str(home / "rebuilt.duckdb")]
    environ = {**os.environ, "PULLONCE_NATS_URL": url, "PULLONCE_HOME": str(home)}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    memory = 0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        memory = max(memory, most_memory(process.pid))
        time.sleep(0.05)
    spent = time.perf_counter() - began
    _, status, used = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "the ledger was not made anew"
    say(f"rebuild from the bus, {events:,} events", f"{events / spent:,.0f} events/s", rate=events / spent)
    say("processor time of that, a million events", f"{(used.ru_utime + used.ru_stime) / events * 1e6:.1f} s")
    say("most memory of that process", f"{memory >> 20} MiB")


def most_memory(pid: int) -> int:
    """Bytes that a process held at once. What `wait4` says of it counts the memory of whoever started it, too."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


async def lag(keeper: Keeper, publisher: asyncio.subprocess.Process, shelf: LedgerFile) -> None:
    """Sample how old the newest folded event is while others arrive, and how long a question takes meanwhile."""
    late: list[float] = []
    asked: list[float] = []
    ended = asyncio.ensure_future(publisher.wait())
    began = time.process_time()
    while not ended.done():
        await asyncio.sleep(0.05)
        told = time.perf_counter()
        found = await shelf.read(lambda reader: reader.execute("SELECT epoch(time) FROM position").fetchall()[0][0])
        asked.append(time.perf_counter() - told)
        if found and keeper.folds > 2:
            late.append(time.time() - found)
    spent = time.process_time() - began
    late.sort()
    asked.sort()
    if late:
        say(f"behind the log at {RATE:,} events/s, median", f"{late[len(late) // 2] * 1000:,.0f} ms")
        say("behind the log, the worst of all samples", f"{late[-1] * 1000:,.0f} ms")
    say("a question meanwhile, median and worst", f"{asked[len(asked) // 2] * 1000:,.1f} / {asked[-1] * 1000:,.0f} ms")
    say("processor time of the ledger", f"{spent / SECONDS:.0%} of a core")


async def publish(bus: object, count: int, *, rate: int, url: str = "") -> None:
    """Publish a long log in order, `rate` events a second; 0: as fast as it goes."""
    link = bus.log._link  # type: ignore[attr-defined]
    encode = msgspec.json.Encoder().encode
    began = time.perf_counter()
    for number, (_, _, event) in enumerate(long_log(count), 1):
        await link.send(event_subject(event), encode(event))
        if rate and number % 50 == 0:
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        elif number % 500 == 0:
            await link.barrier()
    await link.barrier()


async def publish_alone(count: int, rate: int, url: str) -> None:
    async with connect(BusSettings(url=url, name="bench publisher"), patience=10) as bus:
        await publish(bus, count, rate=rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=2_000_000, help="events to fold (default: %(default)s)")
    parser.add_argument("--no-bus", action="store_true", help="leave out what is measured on a bus")
    parser.add_argument("--out", type=Path, help="keep the figures here, as JSON lines")
    parser.add_argument("--publish", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish:
        asyncio.run(publish_alone(args.publish, args.rate, args.url))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as home:
        ledger = build(Path(home), args.events)
        ask(ledger)
        ledger.close()
        if not args.no_bus:
            asyncio.run(follow(Path(home)))
    if args.out:
        keep(args.out, said)


if __name__ == "__main__":
    main()

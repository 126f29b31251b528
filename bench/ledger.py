"""What the ledger costs on this machine: `python bench/ledger.py [--events 2000000]`; about a minute, on files of its own.

Makes a long log (tests/support/long_log.py), folds it as a rebuild does, asks the questions that the page asks, lets a real
keeper follow a real bus at 5,000 events a second and measures how far it lags, and rebuilds from that bus.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec

from pullonce.bus.nats import connect
from pullonce.config import BusSettings
from schemas.ledger import AskHistory, AskStats
from schemas.subjects import event_subject
from services.ledger import explaining, queries
from services.ledger.keeper import Keeper
from services.ledger.live import Live
from services.ledger.projection import Ledger
from services.ledger.rebuild import CHUNK, Rebuild
from services.ledger.shelf import Shelf
from services.ledger.staging import line
from tests.support.long_log import IMAGES, long_log
from tests.support.nats_server import NatsServer

RATE = 5_000
SECONDS = 8
ON_THE_BUS = 1_000_000


def say(what: str, value: str) -> None:
    print(f"{what:<66} {value:>24}", flush=True)


def memory() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"


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
    say(f"fold of NDJSON, {done:,} events", f"{done / spent:,.0f} events/s")
    say("processor time of that, a million events", f"{worked / done * 1e6:.1f} s")
    began = time.perf_counter()
    ledger.execute("CHECKPOINT")
    say("checkpoint", f"{time.perf_counter() - began:.1f} s")
    size = (home / "ledger.duckdb").stat().st_size
    say("size of the file", f"{size / 1e6:,.0f} MB, {size / done:.0f} bytes an event")
    say("most memory so far (DuckDB's limit: 512 MB)", memory())
    return ledger


def ask(ledger: Ledger) -> None:
    """The questions of the page, each asked several times; the median."""
    reader = ledger.reader()
    image = reader.execute("SELECT max(reference) FROM ended_flights").fetchall()[0][0]
    some = reader.execute("SELECT opened FROM ended_flights WHERE fetched > 2 ORDER BY opened LIMIT 1 OFFSET 1000").fetchall()[
        0
    ][0]
    questions: dict[str, Callable[[], object]] = {
        "history, the newest 50": lambda: queries.history(reader, AskHistory()),
        "history of one image": lambda: queries.history(reader, AskHistory(reference=image)),
        "history, failed": lambda: queries.history(reader, AskHistory(failed=True)),
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
    for what, question in questions.items():
        times, worked = [], []
        for _ in range(5):
            began, at_work = time.perf_counter(), time.process_time()
            question()
            times.append(time.perf_counter() - began)
            worked.append(time.process_time() - at_work)
        say(f"{what}; of processor time", f"{sorted(times)[2] * 1000:,.0f} ms; {sorted(worked)[2] * 1000:,.0f} ms")
    reader.close()


async def follow(home: Path) -> None:
    """A bus under load, and a keeper that follows: how many events it is behind, and for how long."""
    server = await asyncio.to_thread(NatsServer(home / "nats").start)
    try:
        async with connect(BusSettings(url=server.url, name="bench"), patience=10) as bus:
            shelf = Shelf(home / "live" / "ledger.duckdb", memory="512MB")
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
            began, at_work = time.perf_counter(), time.process_time()
            reached = await Rebuild(bus.log, home / "rebuilt.duckdb", memory="512MB").run()
            spent = time.perf_counter() - began
            say(f"rebuild from the bus, {reached:,} events", f"{reached / spent:,.0f} events/s")
            worked = time.process_time() - at_work
            say("processor time of that, a million events", f"{worked / reached * 1e6:.1f} s")
    finally:
        server.kill()


async def lag(keeper: Keeper, publisher: asyncio.subprocess.Process, shelf: Shelf) -> None:
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
    parser.add_argument("--events", type=int, default=2_000_000)
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
        asyncio.run(follow(Path(home)))
        say("most memory in all", memory())


if __name__ == "__main__":
    main()

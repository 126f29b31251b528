"""How fast a coordinator folds: the board alone, and through the stream, as at the start of one.

./dev bench fold [--events N]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools.usage import come_first
from pullonce.bus.nats.bus import connect
from pullonce.config import BusSettings
from schemas.events import Event
from services.coordinator.board import Board
from services.coordinator.handlers import Coordinator
from tests.support.long_log import long_log
from tests.support.nats_server import NatsServer


def board_alone(events: list[Event]) -> float:
    board = Board()
    start = time.perf_counter()
    for sequence, event in enumerate(events, 1):
        board.apply(event, sequence)
    return time.perf_counter() - start


async def through_the_stream(events: list[Event], url: str) -> float:
    """From the start of a coordinator to its being ready; its connection is there already."""
    async with connect(BusSettings(url=url, name="bench"), patience=10) as bus:
        await bus.log.append_all(events)
        ready: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        async def caught_up() -> None:
            ready.set_result(time.perf_counter())

        start = time.perf_counter()
        running = asyncio.ensure_future(Coordinator(bus, "bench").run(caught_up))
        took = await ready - start
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    given = parser.parse_args()
    come_first()
    import uvloop

    events = [event for _, _, event in long_log(given.events)]
    alone = min(board_alone(events) for _ in range(3))
    print(f"board alone         {len(events) / alone:10,.0f} events/s")
    with tempfile.TemporaryDirectory() as home:
        server = NatsServer(Path(home)).start()
        try:
            took = uvloop.run(through_the_stream(events, server.url))
        finally:
            server.kill()
    print(f"through the stream  {len(events) / took:10,.0f} events/s, {took:.2f} s for {len(events):,}")


if __name__ == "__main__":
    main()

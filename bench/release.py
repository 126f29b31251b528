"""How long after the last key is settled do the waiters go on: 1,000 and 10,000 of them, in 20 processes.

    ./dev bench release [--waiters 1000,10000] [--storage DIR --image NAME:TAG]

Everything is real; a slow line to the registry keeps the pull in flight until all have asked. The time begins when the server
stores `pull.recorded`, which settles the last key; the coordinator's part, which ends the flight, is in it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools.peers import Ours
from bench.tools.setting import arguments, registry_with, services, slow_line
from pullonce.bus.ports import Recorded
from pullonce.client import connect
from pullonce.process import discovery
from schemas.events import PullCompleted, PullRecorded

PROCESSES = 20


async def story(url: str) -> tuple[list[float], list[int]]:
    """When the store listed each image, and how many requests each flight answered."""
    recorded, shared = [], []
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def apply(each: Recorded) -> None:
        if isinstance(each.event, PullRecorded):
            recorded.append(each.time)
        if isinstance(each.event, PullCompleted):
            shared.append(each.event.sharing.requests)
        if each.pending == 0 and not end.done():
            end.set_result(None)

    async with connect(url) as client:
        watching = asyncio.ensure_future(client.watch(apply))
        await end
        watching.cancel()
    return recorded, shared


def release(ours: Ours, image: str, count: int) -> None:
    served = discovery.served(str(ours.home))
    assert served is not None
    command = [sys.executable, "-m", "bench.tools.waiters", served.url, str(count // PROCESSES), f"{ours.host}/{image}"]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    woken: list[float] = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        woken += json.loads(process.stdout.readline())
    for process in processes:
        process.communicate()
    (settled, *more), shared = asyncio.run(story(served.url))
    after = sorted((each - settled) * 1e3 for each in woken)
    assert not more and len(shared) == 1, "not all had asked when the pull ended: a slower line is needed"
    middle, most, last = after[len(after) // 2], after[int(len(after) * 0.99)], after[-1]
    print(f"{count:6} waiters in {PROCESSES} processes: p50 {middle:.1f} ms, p99 {most:.1f} ms, last {last:.1f} ms")


def main() -> None:
    parser = arguments(__doc__ or "", "small:latest")
    parser.add_argument("--waiters", default="1000,10000")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    with registry_with(given.storage, given.image) as registry:
        for count in map(int, given.waiters.split(",")):
            for _ in range(given.repetitions):
                # Some 3,000 requests a second are stored beside everything else on two processors.
                with slow_line(registry.host, 30_000 / (count + 1000)) as host, services(host) as ours:
                    release(ours, given.image, count)


if __name__ == "__main__":
    main()

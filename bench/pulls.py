"""Whole pulls: one, twenty, a thousand at once, beside whatever else is installed that pulls images.

    ./dev bench pulls                                    images made of this machine's packages; takes some minutes
    ./dev bench pulls --storage DIR --images redis,golang --peers pullonce,docker --processes 1,20 --requests 1,1000

`--processes N` starts N clients at once; `--requests N` has one connected client ask N times at once (pullonce only). Every run
has a store on a fresh ext4 with a journal and a registry whose content is in memory; peers take turns. Wall: from the first
client's start to the last one's end. CPU: all clients, daemons and their children, nats-server included, without the registry.
`BENCH_LOCK` names a file that is locked during each run, where several people measure on one machine.

Peers are taken from PATH, and, where these say so, from elsewhere:

    CONTAINERD_BIN=DIR      containerd 2.2 or later and its ctr: ctr-current and crictl-current as it comes, ctr-parallel and
                            crictl-parallel with two layers for each core unpacked at once
    CONTAINERD_PRE_BIN=DIR  one before 1.6.3: ctr-pre, crictl-pre. Their x20, as that of ctr, takes half a minute and more
    CRICTL_BIN=FILE or DIR  crictl, which all crictl peers need

Through the gateway: gateway-crictl (Debian's containerd with our snapshotter and mirror), gateway-crictl-current (that of
CONTAINERD_BIN), gateway-cri (our CRI image service alone).

containerd inflates with igzip (Debian: isal) or unpigz (pigz) where it finds one in PATH; kept results say which there was.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.tools import images
from bench.tools.disk import fresh_disk, warm_memory
from bench.tools.peer import Peer
from bench.tools.peers import ALL
from bench.tools.peers_ours import Ours
from bench.tools.registry import Registry, serving
from bench.tools.results import Row, keep, median, show
from bench.tools.usage import Group, come_first, machine_busy


@contextmanager
def alone() -> Iterator[None]:
    """The machine to oneself, among those who ask for it."""
    path = os.environ.get("BENCH_LOCK")
    if not path:
        yield
        return
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clients(peer: Peer, image: str, count: int, group: Group) -> tuple[float, int]:
    """So many client processes at once: seconds until the last has ended, and how many failed."""
    start = time.monotonic()
    with (peer.place / "clients.log").open("ab") as log, group.inside():
        running = [
            subprocess.Popen(peer.pull(image), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=peer.environ)
            for _ in range(count)
        ]
    failed = sum(client.wait() != 0 for client in running)
    return time.monotonic() - start, failed


def requests(peer: Ours, image: str, count: int, group: Group) -> tuple[float, int]:
    """So many requests of one connected client: seconds until the last is answered, and whether it failed."""
    command, pipe = peer.requester(image, count), subprocess.PIPE
    with group.inside():
        asking = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    with asking as client:
        assert client.stdin and client.stdout
        client.stdout.readline()
        start = time.monotonic()
        client.stdin.write("go\n")
        client.stdin.flush()
        done = client.stdout.readline()
        wall = time.monotonic() - start
    return wall, int(done != "done\n")


def run(kind: type[Peer], image: str, how: str, count: int, registry: Registry) -> Row:
    """One measured run."""
    with alone(), fresh_disk(kind.disk) as place:
        registry.warm(image)
        warm_memory()
        daemons, used = Group("daemons"), Group("clients")
        peer = kind(place, registry.host, daemons)
        try:
            peer.start()
            os.sync()
            daemons.forget_peaks()
            position, before = registry.position(), (daemons.cpu(), used.cpu(), registry.cpu(), machine_busy())
            if isinstance(peer, Ours) and how == "requests":
                wall, failed = requests(peer, image, count, used)
            else:
                wall, failed = clients(peer, image, count, used)
            after = (daemons.cpu(), used.cpu(), registry.cpu(), machine_busy())
            peaks, asked = daemons.peaks(), registry.since(position)
        finally:
            peer.stop()
            daemons.close()
            used.close()
    of_daemons, of_clients, of_registry, busy = (b - a for a, b in zip(before, after, strict=True))
    other = busy - of_daemons - of_clients - of_registry
    row: Row = {"peer": peer.name, "image": image, "how": how, "count": count, "wall": wall, "failed": failed}
    row |= {"cpu": of_daemons + of_clients, "cpu_clients": of_clients, "cpu_registry": of_registry, "cpu_other": other}
    return (
        {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} | {"peaks": peaks} | asked
    )


def table(rows: list[Row]) -> None:
    """Medians, and each peer's beside ours."""

    def case(row: Row) -> tuple[str, str, int]:
        return row["image"], row["how"], row["count"]

    lines = []
    for (image, how, count), group in groupby(sorted(rows, key=lambda row: (*case(row), list(ALL).index(row["peer"]))), case):
        of_peer = {name: list(some) for name, some in groupby(group, lambda row: str(row["peer"]))}
        ours = of_peer.get(Ours.name)
        for name, some in of_peer.items():
            wall, cpu = median(some, lambda row: row["wall"]), median(some, lambda row: row["cpu"])
            ratios = (
                (f"{median(ours, lambda r: r['wall']) / wall:.2f}", f"{median(ours, lambda r: r['cpu']) / cpu:.2f}")
                if ours and name != Ours.name
                else ("", "")
            )
            last = some[-1]
            peak = max((max(row["peaks"].values(), default=0.0) for row in some), default=0.0)
            asked = f"{last['heads']} + {last['manifest_gets']} + {last['blob_gets']}"
            failed = sum(row["failed"] for row in some)
            lines.append(
                [f"{image} x{count} {'' if how == 'processes' else 'by one client'}".strip(), name, f"{wall:.2f}", f"{cpu:.2f}",
                 *ratios, f"{peak:.0f}", asked, f"{last['blob_bytes'] / 1e6:.0f}", str(failed), str(len(some))]
            )  # fmt: skip
    head = [
        "pull",
        "peer",
        "wall s",
        "CPU s",
        "ours/its wall",
        "CPU",
        "peak MB",
        "HEAD + GET manifest + blob",
        "MB",
        "failed",
        "runs",
    ]
    show(head, lines)


def measure(given: argparse.Namespace, registry: Registry) -> Iterator[Row]:
    cases = [("processes", count) for count in given.processes] + [("requests", count) for count in given.requests]
    for repetition in range(given.repetitions):
        for image in given.images:
            for how, count in cases:
                for name in given.peers if how == "processes" else [Ours.name]:
                    row = run(ALL[name], image, how, count, registry) | {"repetition": repetition}
                    short = {
                        key: row[key]
                        for key in ("peer", "image", "how", "count", "wall", "cpu", "cpu_other", "failed", "peaks")
                    }
                    print(short, file=sys.stderr, flush=True)
                    yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: [word if ":" in word else f"{word}:latest" for word in text.split(",")]  # noqa: E731
    numbers = lambda text: [int(word) for word in text.split(",") if word]  # noqa: E731
    present = [name for name, kind in ALL.items() if kind.present()]
    parser.add_argument("--storage", type=Path, help="a registry's storage directory to serve, instead of images made here")
    parser.add_argument("--images", type=words, default=words("small,large,large:zstd,single,many"))
    parser.add_argument("--peers", type=lambda text: text.split(","), default=present, help=f"of {','.join(present)}")
    parser.add_argument("--processes", type=numbers, default=[1, 20])
    parser.add_argument("--requests", type=numbers, default=[1, 200, 1000])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep the rows here, as JSON lines")
    given = parser.parse_args()
    if absent := [name for name in given.peers if name not in present]:
        parser.error(f"not here: {', '.join(absent)}")
    come_first()
    with tempfile.TemporaryDirectory() as home:
        storage = given.storage or Path(home) / "content"
        with serving(storage, Path(home)) as registry:
            if given.storage is None:
                images.push_all(registry.host)
            rows = list(measure(given, registry))
    if given.out:
        keep(given.out, rows)
    table(rows)


if __name__ == "__main__":
    main()

"""Many stores ask for one image at once, and workers answer at once: what the control plane takes, without a byte of content.

./dev bench storm [--stores N] [--layers N] [--coordinators N] [--kill] [--code DIR] [--keep FILE]

Coordinators and nats-server are real processes. Every store's first pull: a reference to resolve, each layer to fetch and to
unpack, an image to list. `--kill` kills a coordinator in the midst of it; `--code` takes the coordinators from another tree,
to compare versions in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.tools.results import Row, keep
from bench.tools.usage import come_first
from pullonce.bus.nats.bus import connect
from pullonce.config import BusSettings
from schemas import orders, routing
from schemas.events import (
    BlobFetched,
    Event,
    LayerUnpacked,
    PullRecorded,
    PullRequested,
    PullResolved,
    ResolvedLayer,
    Source,
)
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.orders import FetchBlob, Order, ResolveReference, UnpackLayer
from tests.support.nats_server import NatsServer

HERE = Path(__file__).parent.parent
REFERENCE = "registry.example/storm/app:1"
KINDS = ("resolve.reference", "fetch.blob", "unpack.layer", "record.image")
PATIENCE = 180.0


def _digest(*names: object) -> str:
    return f"sha256:{sha256(repr(names).encode()).hexdigest()}"


def _layers(count: int) -> tuple[ResolvedLayer, ...]:
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    return tuple(
        ResolvedLayer(
            blob=Descriptor(media_type=media_type, digest=Digest(_digest("b", n)), size=125_000_000),
            diff_id=DiffID(_digest("d", n)), chain_id=ChainID(_digest("c", n)),
        )
        for n in range(count)
    )  # fmt: skip


def cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MB that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Workers:
    """All workers of all stores: every order is carried out the moment it comes."""

    def __init__(self, connection: Client, layers: int) -> None:
        self._connection = connection
        self._layers = _layers(layers)
        self._manifest = Descriptor(media_type="m", digest=Digest(_digest("m")), size=1500)
        self.carried_out: Counter[str] = Counter()
        """Subject of an order → times it was handed out."""
        self.keys: Counter[str] = Counter()

    async def serve(self) -> None:
        for kind in KINDS:
            inbox = self._connection.new_inbox()
            await self._connection.subscribe(inbox, cb=self._take)
            name = kind.replace(".", "-") + "-of-all"
            config = {
                "durable_name": name, "filter_subject": f"{kind}.>", "deliver_subject": inbox, "ack_policy": "explicit",
                "ack_wait": 60_000_000_000, "max_ack_pending": 1_000_000, "mem_storage": True,
            }  # fmt: skip
            await ask(self._connection, f"CONSUMER.CREATE.ORDERS.{name}.{kind}.>", {"stream_name": "ORDERS", "config": config})

    async def _take(self, msg: Msg) -> None:
        order = orders.decode(msg.subject, msg.data)
        self.carried_out[msg.subject] += 1
        self.keys[routing.claim_key(order)] += 1
        fact = self._fact(order)
        headers = {"Nats-Msg-Id": routing.event_id(fact) or ""}
        await self._connection.publish(routing.event_subject(fact), msgspec.json.encode(fact), headers=headers)
        await self._connection.publish(msg.reply, b"+ACK")

    def _fact(self, order: Order) -> Event:
        match order:
            case ResolveReference():
                return PullResolved(
                    store=order.store, reference=order.reference, flight=order.flight, opened=order.opened,
                    platform="linux/amd64", source=Source("registry.example", "storm/app"), digest=self._manifest.digest,
                    manifest=self._manifest, config=self._manifest, layers=self._layers, revision=order.revision,
                )  # fmt: skip
            case FetchBlob():
                return BlobFetched(store=order.store, digest=order.blob.digest, size=order.blob.size, revision=order.revision)
            case UnpackLayer():
                return LayerUnpacked(store=order.store, chain_id=order.chain_id, diff_id=order.diff_id, revision=order.revision)
        return PullRecorded(
            store=order.store, reference=order.reference, flight=order.flight, opened=order.opened, revision=order.revision
        )


async def ask(connection: Client, name: str, body: object) -> Any:
    answer = await connection.request(f"$JS.API.{name}", json.dumps(body).encode(), timeout=30)
    found = json.loads(answer.data)
    if "error" in found:
        raise RuntimeError(f"{name}: {found['error']}")
    return found


async def state(connection: Client, stream: str) -> dict[str, int]:
    found: dict[str, int] = (await ask(connection, f"STREAM.INFO.{stream}", {}))["state"]
    return found


class Coordinators:
    """Coordinator processes of one tree, in a group each."""

    def __init__(self, code: Path, url: str, count: int, home: str) -> None:
        environ = {**os.environ, "PULLONCE_NATS_URL": url, "PULLONCE_HOME": home, "PYTHONPATH": str(code)}
        environ.setdefault("PULLONCE_LOG_LEVEL", "warning")
        self.started = time.perf_counter()
        self.processes = [
            subprocess.Popen([sys.executable, "-m", "services.coordinator"], env=environ, cwd=code) for _ in range(count)
        ]

    def cpu(self) -> float:
        return sum(cpu(each.pid) for each in self.processes if each.poll() is None)

    def stop(self) -> None:
        for each in self.processes:
            each.terminate()
        for each in self.processes:
            each.wait()

    async def ready(self, connection: Client) -> None:
        here: set[int] = set()
        while len(here) < len(self.processes):
            inbox = connection.new_inbox()
            subscription = await connection.subscribe(inbox)
            await connection.publish("pullonce.ping", b"", reply=inbox)
            try:
                while True:
                    said = (await subscription.next_msg(timeout=0.2)).data
                    here |= {json.loads(said)["pid"]} if said else set()  # empty: nobody is there yet
            except nats.errors.TimeoutError:
                await subscription.unsubscribe()


async def storm(given: argparse.Namespace, url: str, server_pid: int, home: str) -> Row:
    async with connect(BusSettings(url=url, name="storm"), patience=10) as bus:
        crew = Coordinators(given.code, url, given.coordinators, home)
        connection = await nats.connect(url, pending_size=64 << 20)
        try:
            await crew.ready(connection)
            workers = Workers(connection, given.layers)
            await workers.serve()
            await asyncio.sleep(2.0)  # what a start leaves to be done
            done: dict[str, float] = {}
            complete = asyncio.Event()

            async def ended(msg: Msg) -> None:
                done.setdefault(msg.subject.split(".")[2], time.perf_counter())
                if len(done) == given.stores:
                    complete.set()
                if given.kill and len(done) == given.stores // 2 and len(crew.processes) > 1:
                    crew.processes[0].kill()

            await connection.subscribe("pull.completed.>", cb=ended)
            await connection.flush()
            written = (await state(connection, "KV_claims"))["last_seq"]
            used, server = crew.cpu(), cpu(server_pid)
            start = time.perf_counter()
            window = asyncio.Semaphore(1000)

            async def request(number: int) -> None:
                async with window:
                    await bus.log.append(PullRequested(store=f"s{number:05d}", reference=REFERENCE))

            await asyncio.gather(*map(request, range(given.stores)))
            stored = time.perf_counter() - start
            await asyncio.wait_for(complete.wait(), PATIENCE)
            await asyncio.sleep(1.0)
            times = sorted(each - start for each in done.values())
            events, queued = await state(connection, "EVENTS"), await state(connection, "ORDERS")
            return {
                "what": "storm", "code": given.label, "stores": given.stores, "layers": given.layers,
                "coordinators": given.coordinators, "killed": given.kill, "stored": round(stored, 2),
                "first": round(times[0], 2), "median": round(times[len(times) // 2], 2), "last": round(times[-1], 2),
                "cpu": round(crew.cpu() - used, 2), "cpu_server": round(cpu(server_pid) - server, 2),
                "keys": len(workers.keys), "orders": queued["last_seq"],
                "keys_ordered_again": sum(times > 1 for times in workers.keys.values()),
                "claim_writes": (await state(connection, "KV_claims"))["last_seq"] - written, "events": events["messages"],
                "rss": round(max(resident(each.pid) for each in crew.processes if each.poll() is None), 1),
            }  # fmt: skip
        finally:
            await connection.close()
            crew.stop()


def run(given: argparse.Namespace) -> Row:
    import uvloop

    with tempfile.TemporaryDirectory() as home:
        server = NatsServer(Path(home)).start()
        assert server._process is not None
        try:
            return uvloop.run(storm(given, server.url, server._process.pid, home))
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stores", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--coordinators", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--code", type=Path, nargs="+", default=[HERE])
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    come_first()
    rows = []
    for stores in given.stores:
        for coordinators in given.coordinators:
            for code in given.code:
                label = "" if code == HERE else code.name
                one = argparse.Namespace(**{
                    **vars(given), "stores": stores, "coordinators": coordinators, "code": code.resolve(), "label": label
                })  # fmt: skip
                rows.append(run(one))
                print(json.dumps(rows[-1]), flush=True)
    if given.keep:
        keep(given.keep, rows)


if __name__ == "__main__":
    main()

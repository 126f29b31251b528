"""`pullonce rm`, `pin`, `unpin`, `gc` and `verify`: what becomes of a store after the pulls. Run them where the store lies."""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from pullonce.bus.nats.bus import connect as connect_bus
from pullonce.bus.ports import Bus
from pullonce.care.choice import Retention
from pullonce.care.collect import Collected, Collector
from pullonce.care.flights import ask
from pullonce.care.held import HeldThings, counted
from pullonce.care.listing import ImageList, NotListed
from pullonce.care.things import layer
from pullonce.care.verify import StoreVerifier, Verified, title
from pullonce.cli import units
from pullonce.cli.pull import join_or_start, let_go
from pullonce.client import connect
from pullonce.config import BusSettings, store_root
from pullonce.errors import PullFailed, PullTimeout
from pullonce.oci import reference
from pullonce.oci.platform import normalise
from pullonce.process import discovery
from pullonce.store.content import ContentStore, open_store
from pullonce.store.images import ImageRecord
from pullonce.store.layout import Layout

_DAY = 86_400.0
_HOUR = 3_600.0
_PATIENCE = 5.0


def rm(args: argparse.Namespace) -> int:
    """Carry out `pullonce rm`."""
    name, platform = str(reference.parse(args.reference)), normalise(args.platform) if args.platform else ""
    content = _content(args)

    async def remove() -> list[ImageRecord]:
        async with _bus(url) as bus:
            return ImageList(content).remove(name, platform, await ask(bus.signals, args.store))

    with served(args) as url:
        gone = asyncio.run(remove())
    if args.json:
        print(json.dumps([msgspec.to_builtins(record) for record in gone]))
        return 0
    held = HeldThings(content).things()
    for record in gone:
        print(f"{record.reference} ({record.platform}) is off the list; `pullonce gc` frees what nothing else needs")
        for holder, number in counted(held, set(map(layer, record.chain_ids))).items():
            print(f"  {number} of its {len(record.chain_ids)} layers stay until {holder} lets them go")
    return 0


def pin(args: argparse.Namespace) -> int:
    """Carry out `pullonce pin`."""
    return _pin(args, pinned=True)


def unpin(args: argparse.Namespace) -> int:
    """Carry out `pullonce unpin`."""
    return _pin(args, pinned=False)


def _pin(args: argparse.Namespace, *, pinned: bool) -> int:
    image_list = ImageList(_content(args))
    if args.reference:
        image_list.pin(str(reference.parse(args.reference)), pinned=pinned)
    if args.json:
        print(json.dumps(image_list.pins.all()))
    elif not args.reference:
        print("".join(f"{each}\n" for each in image_list.pins.all()), end="")
    return 0


def gc(args: argparse.Namespace) -> int:
    """Carry out `pullonce gc`."""
    limits = Retention(
        unused_since=None if args.keep_days is None else time.time() - args.keep_days * _DAY, most_bytes=args.max_bytes
    )
    content = _content(args)

    async def collect() -> Collected:
        async with _bus(url) as bus:
            collector = Collector(bus, content, args.store, older=args.partial_hours * _HOUR)
            return await collector.run(limits, dry=args.dry_run)

    with served(args) as url:
        report = asyncio.run(collect())
    print(msgspec.json.encode(report).decode() if args.json else "\n".join(_collected(report, dry=args.dry_run)))
    return 0


def _collected(report: Collected, *, dry: bool) -> Iterator[str]:
    would = "would go: " if dry else "gone: "
    yield from (f"{would}{each}" for each in report.images)
    freed = report.blob_bytes + report.layer_bytes + report.partial_bytes
    yield (
        f"{would}{report.blobs} blobs ({units.amount(report.blob_bytes)}), {report.layers} layers "
        f"({units.amount(report.layer_bytes)}), {report.partial} partial downloads ({units.amount(report.partial_bytes)}), "
        f"{report.staging} aborted unpacks; {units.amount(freed)} in all"
    )
    yield f"{'would stay' if dry else 'stays'}: {units.amount(report.held_bytes)}"
    yield from (f"kept, though nothing needs it: {each} is mounted" for each in report.mounted)
    yield from (f"kept for {holder}: {number} that nothing else needs" for holder, number in report.held.items())
    if report.busy:
        yield f"left for the next time: {report.busy}, in use at this moment"


def verify(args: argparse.Namespace) -> int:
    """Carry out `pullonce verify`. The exit code is 1 where damage was found and not repaired."""
    os.nice(10)
    content = _content(args)

    async def check() -> Verified:
        async with _bus(url) as bus:
            threads = len(os.sched_getaffinity(0))
            verifier = StoreVerifier(bus, content, args.store, rate=args.rate, threads=threads, compare=not args.blobs_only)
            report, concerned = await verifier.run()
        if args.repair:
            await _repair(url, args.store, concerned, report)
        return report

    with served(args) as url:
        report = asyncio.run(check())
    print(msgspec.json.encode(report).decode() if args.json else "\n".join(_verified(report)))
    unrepaired = [each for each in report.images if each not in report.repaired]
    left = [each for each in report.damaged if each.left]
    return 1 if unrepaired or left or (report.damaged and not args.repair) else 0


async def _repair(url: str, store: str, concerned: list[ImageRecord], report: Verified) -> None:
    """Pull what was taken off the list; what that says of failures goes to stderr."""
    async with connect(url, name="pullonce verify") as client:
        for image in concerned:
            try:
                await client.pull(
                    image.reference, store=store, platform=image.platform, unpack=bool(image.chain_ids),
                    requester="pullonce verify --repair", door="verify",
                )  # fmt: skip
            except (PullFailed, PullTimeout) as exc:
                print(f"pullonce: {image.reference} is not repaired: {exc}", file=sys.stderr)
            else:
                report.repaired.append(title(image))


def _verified(report: Verified) -> Iterator[str]:
    yield (
        f"read {report.blobs} blobs ({units.amount(report.blob_bytes)}), looked at {report.layers} layers, "
        f"unpacked and compared {report.compared} of them"
    )
    yield from (f"not compared: {chain_id}: {why}" for chain_id, why in report.unchecked.items())
    for each in report.damaged:
        held = f"; {each.held} holds it" if each.held else ""
        became = each.left or (f"moved to {each.moved_to}" if each.moved_to else "said to be lost")
        yield f"damaged: {each.kind} {each.name}: {each.why}; {became}{held}"
    for name in report.images:
        if name not in report.repaired:
            yield f"off the list, pull it again: {name}"
    yield from (f"repaired: {name}" for name in report.repaired)
    if not report.damaged:
        yield "no damage"


# -- the store and the bus -----------------------------------------------------------------------------------------------


def _content(args: argparse.Namespace) -> ContentStore:
    root = store_root(Path(args.home), args.store)
    if not Layout(root).store.exists():
        raise NotListed(f"there is no store {args.store} in {args.home}")
    return open_store(root)


@contextmanager
def served(args: argparse.Namespace) -> Iterator[str]:
    """The bus of the services, which are started for as long as this takes where nothing runs."""
    users = join_or_start(args.home, args.store)
    try:
        yield discovery.bus_address(args.home)
    finally:
        if users:
            let_go(args.home, users)


@asynccontextmanager
async def _bus(url: str) -> AsyncIterator[Bus]:
    settings = BusSettings.from_env("pullonce", {**os.environ, "PULLONCE_NATS_URL": url})
    async with connect_bus(settings, patience=_PATIENCE) as bus:
        yield bus

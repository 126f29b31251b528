"""`pullonce up` and `pullonce ping`: the embedded default, and whether every part answers."""

import argparse
import asyncio
from pathlib import Path

from pullonce import environment
from pullonce.client import connect
from pullonce.config import store_root
from pullonce.errors import BusUnavailable, ServicesMissing
from pullonce.process.runtime import run
from pullonce.process.up import UpSettings, gateway_can_serve
from pullonce.process.up import up as serve
from pullonce.pulling.parts import missing_parts
from pullonce.store.disk import disk_errors
from pullonce.store.suitable import check_suitable
from schemas.status import Pong


def up(args: argparse.Namespace) -> int:
    """Carry out `pullonce up`. Never returns: the process ends with the services."""
    settings = UpSettings(
        home=Path(args.home),
        store=args.store,
        url=args.nats_url or environment.nats_url(),
        coordinators=args.coordinators,
        fetchers=args.fetchers,
        unpackers=args.unpackers,
        # One that was started for a single pull should be there at once; the log keeps what a ledger will want to know.
        ledger=args.ledger and not args.temporary,
        gateway=_serves_others(args),
        temporary=args.temporary,
        group=environment.group(),
    )

    def ready(url: str) -> None:
        print(f"pullonce is ready at {environment.redacted(url)} (store {settings.store}, home {settings.home})", flush=True)
        if not settings.url and not settings.temporary:
            print('other NATS clients get in by `export NATS_URL="$(pullonce bus url)"`', flush=True)

    def ledger(address: str) -> None:
        print(f"the ledger answers at {address}", flush=True)

    async def main() -> None:
        with disk_errors(settings.home):
            check_suitable(store_root(settings.home, settings.store))
            await serve(settings, ready=ready, ledger=ledger)

    run(main, "up")


def _serves_others(args: argparse.Namespace) -> bool:
    """Whether a gateway is wanted; where nobody said, whether there can be one."""
    if args.gateway is not None:
        return bool(args.gateway)
    return not args.temporary and gateway_can_serve(Path(args.home), args.store)


def ping(args: argparse.Namespace) -> int:
    """Carry out `pullonce ping`."""
    try:
        pongs = asyncio.run(_ping(args.store))
    except BusUnavailable as exc:
        raise ServicesMissing(f"missing: the bus ({exc})") from None
    for pong in sorted(pongs, key=lambda pong: (pong.service, pong.store, pong.pid)):
        where = f" on {pong.host}" if pong.host else ""
        print(f"{pong.service:<12} {pong.store or '-':<12} process {pong.pid}{where}, version {pong.version}{_told(pong)}")
    if missing := missing_parts(_present(pongs), args.store):
        raise ServicesMissing(f"missing: {', '.join(missing)}")
    return 0


def _told(pong: Pong) -> str:
    """Where it answers over HTTP."""
    return "".join(f", {name} {pong.details[name]}" for name in ("http", "metrics", "trouble") if name in pong.details)


async def _ping(store: str) -> list[Pong]:
    async with connect(name="pullonce ping", patience=1.0) as client:
        return await client.ping(1.0, enough=lambda pongs: not missing_parts(_present(pongs), store))


def _present(pongs: list[Pong]) -> set[tuple[str, str]]:
    return {(pong.service, pong.store) for pong in pongs}

"""`pullonce bus`: configure a NATS server for a new deployment, and make the streams on it."""

import argparse
import asyncio
import grp
import os
import pwd
from pathlib import Path

from pullonce import environment
from pullonce.bus.nats.bus import connect
from pullonce.bus.nats.deployment import Plan, write
from pullonce.bus.nats.nkeys import KeyInvalid
from pullonce.config import BusSettings
from pullonce.errors import PullonceError
from pullonce.process import discovery

PATIENCE = 60.0
"""Seconds that a server which is being started has, and a cluster to find its leaders."""


def bus(args: argparse.Namespace) -> int:
    """Carry out `pullonce bus init`, `setup` and `url`."""
    match args.action:
        case "init":
            return _init(args)
        case "url":
            print(discovery.bus_address(args.home))
            return 0
        case _:
            return asyncio.run(_setup())


def _init(args: argparse.Namespace) -> int:
    if not args.directory:
        raise PullonceError("say where: pullonce bus init DIR")
    urls = tuple(each.strip() for each in args.url.split(","))
    if not all(url.startswith(("tls://", "nats://")) for url in urls) or len({url.partition(":")[0] for url in urls}) > 1:
        raise PullonceError(f"{args.url}: expected addresses that all begin with tls://, or all with nats://")
    directory = Path(args.directory)
    stores, names = tuple(args.store or ["default"]), tuple(args.name)
    if "*" in stores and len(stores) > 1:
        raise PullonceError("--store '*' gives every role a key for all stores; leave the other --store out")
    plan = Plan(directory, urls, stores, names, at=args.at, data=args.data, monitoring=args.monitoring)
    try:
        write(plan)
        for user in (*plan.users, "server") if args.owner else ():
            for path in (directory / user, *(directory / user).iterdir()):
                os.chown(path, *_owner(args.owner))
    except (OSError, KeyInvalid, LookupError) as exc:
        raise PullonceError(f"the bus cannot be configured: {exc}") from exc
    print(f"{directory}: configured for {', '.join(urls)}; stores {', '.join(plan.stores)}")
    print(f"start the server   nats-server --config {plan.used_at('server', 'nats.conf')}")
    print(f"make its streams   set -a; . {plan.used_at('admin', 'env')}; pullonce bus setup")
    print(f"then every part with the env file of its role: {', '.join(user for user in plan.users if user != 'admin')}")
    return 0


def _owner(text: str) -> tuple[int, int]:
    """Numbers of `USER[:GROUP]`, given as names or numbers. Raises LookupError."""
    user, _, group = text.partition(":")
    number = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    if not group:
        return number, number if user.isdecimal() else pwd.getpwnam(user).pw_gid
    return number, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid


async def _setup() -> int:
    settings = BusSettings.from_env("pullonce bus setup")
    async with connect(settings, patience=PATIENCE) as bus:
        print(f"the streams at {environment.redacted(settings.url)} are ready; EVENTS ends at {await bus.log.last_sequence()}")
    return 0

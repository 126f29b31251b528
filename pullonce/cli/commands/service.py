"""What runs pullonce, and asks whether it answers."""

import argparse

from pullonce.cli.commands.arguments import Command, count, store


def _up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nats-url", metavar="URL", default="", help="use this NATS server instead of starting one")
    store(up)
    for part in ("coordinators", "fetchers", "unpackers"):
        up.add_argument(f"--{part}", metavar="N", type=count, default=1, help=f"how many {part} to run (default 1)")
    up.add_argument("--no-ledger", dest="ledger", action="store_false", help="keep no history; nothing else needs it")
    up.add_argument(
        "--gateway", action=argparse.BooleanOptionalAction, default=None,
        help="serve containerd and others by the gateway (default: where it can, as root)",
    )  # fmt: skip
    up.add_argument("--temporary", action="store_true", help=argparse.SUPPRESS)


COMMANDS = {
    "up": Command("run nats-server and all services in the foreground, until Ctrl-C", "service:up", _up),
    "ping": Command("exit 0 when every part answers; name what is missing otherwise", "service:ping", store),
}

"""The NATS server of a deployment."""

import argparse

from pullonce.cli.commands.arguments import Command, plain_name


def _bus(bus: argparse.ArgumentParser) -> None:
    bus.add_argument(
        "action", choices=("init", "setup", "url"),
        help="init: write a server's configuration and everybody's credentials; setup: make the streams on it; "
        "url: print the address of the bus that serves this home, with its password, for other NATS clients",
    )  # fmt: skip
    bus.add_argument("directory", metavar="DIR", nargs="?", default="", help="init: where to write; keys that are there stay")
    bus.add_argument(
        "--url", default="tls://127.0.0.1:4222",
        help="init: what everybody is told; tls:// or nats://, several for a cluster (default tls://127.0.0.1:4222)",
    )  # fmt: skip
    bus.add_argument(
        "--store", metavar="NAME", type=_store, action="append",
        help="init: a store (default: default; repeatable), or '*': one key a role for every store",
    )  # fmt: skip
    bus.add_argument("--name", action="append", default=[], help="init: further name of the server, for its certificate")
    bus.add_argument("--at", metavar="DIR", default="", help="init: where the files will lie when used (default: DIR)")
    bus.add_argument("--data", metavar="DIR", default="", help="init: directory of the server's streams")
    bus.add_argument(
        "--monitoring", metavar="HOST:PORT", default="127.0.0.1:8222",
        help="init: where the server tells of itself by HTTP, nowhere if empty (default 127.0.0.1:8222)",
    )  # fmt: skip
    bus.add_argument("--owner", metavar="USER[:GROUP]", default="", help="init: whom the credentials belong to")


def _store(text: str) -> str:
    return text if text == "*" else plain_name(text)


COMMANDS = {
    "bus": Command("configure a NATS server with a user for each role, and make its streams", "bus:bus", _bus),
}

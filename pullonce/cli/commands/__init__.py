"""The commands of `pullonce`: which there are, and which module beside this one declares each.

A command is added by a line of `GROUPS` and an entry in that module's `COMMANDS`: its help, what carries it out and what it
accepts. The modules here load nothing but argparse, since help and completion read all of them; what carries a command out is
loaded when it runs.
"""

import argparse
import sys

from pullonce.cli.commands.arguments import EXIT_CODES, Command, Formatter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = {
    "up": "service",
    "ping": "service",
    "pull": "pull",
    "images": "store",
    "mounts": "store",
    "mount": "store",
    "export": "exchange",
    "import": "exchange",
    "push": "exchange",
    "umount": "store",
    "bundle": "bundle",
    "unbundle": "bundle",
    "bundles": "bundle",
    "expose": "expose",
    "unexpose": "expose",
    "rm": "caretaking",
    "pin": "caretaking",
    "unpin": "caretaking",
    "gc": "caretaking",
    "verify": "caretaking",
    "status": "status",
    "events": "status",
    "history": "ledger",
    "stats": "ledger",
    "explain": "ledger",
    "sql": "ledger",
    "ledger": "ledger",
    "bus": "bus",
    "gateway": "gateway",
    "completion": "completion",
}
"""Command → the module of this package that declares it, in the order in which help lists them."""

ENVIRONMENT = """\
environment:
  PULLONCE_HOME       where everything lies (default /var/lib/pullonce for root, else $XDG_DATA_HOME/pullonce)
  PULLONCE_NATS_URL   the bus (default: that of the `pullonce up` of this home)
  PULLONCE_STORE      the store, where --store does not say (default: default)
"""


def declared(name: str) -> Command:
    """What a command is. KeyError: there is none of that name."""
    module = __import__(f"{__name__}.{GROUPS[name]}", fromlist=["COMMANDS"])
    return module.COMMANDS[name]  # type: ignore[no-any-return]


def all_commands() -> "Iterator[tuple[str, Command]]":
    """Every command, in the order of help."""
    return ((name, declared(name)) for name in GROUPS)


def read(words: "list[str]") -> "tuple[str, argparse.Namespace] | None":
    """What is to carry a command line out (`module:name`), and its arguments; None for one that names no command.

    Leaves by SystemExit where it is wrong, or asks for help.
    """
    if not words or words[0] not in GROUPS:
        return None
    # One command's parser, not all: building the others would cost each pull as much as its whole conversation.
    command = declared(words[0])
    args = command.read(words[0], words[1:])
    return getattr(args, "handler", command.handler), args


def without_command(words: "list[str]") -> bool:
    """Say help, the version, or what is wrong; False for the last."""
    top = argparse.ArgumentParser(
        prog="pullonce", formatter_class=Formatter, epilog=f"{EXIT_CODES}\n{ENVIRONMENT}",
        description="Pull container images once, however many ask for them at once.",
    )  # fmt: skip
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(metavar="COMMAND", title="commands (pullonce COMMAND --help tells more)")
    for name, command in all_commands():
        commands.add_parser(name, help=command.help)
    if top.parse_args(words).version:
        from pullonce.process.runtime import version

        print(f"pullonce {version()}")
        return True
    top.print_help(sys.stderr)
    return False

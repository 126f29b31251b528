"""The commands of `pullonce` and their arguments: what each accepts, and which function carries it out."""

import argparse
import os
import sys
from importlib import import_module

from pullonce import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_CODES = """\
exit codes:
  0    done
  1    failed; the reason is on stderr
  2    usage: an argument, a reference or a setting cannot be used
  3    no service answers, or the time given with --timeout passed
  130  interrupted (a pull that was waited for is withdrawn)
"""

ENVIRONMENT = """\
environment:
  PULLONCE_HOME       where everything lies (default /var/lib/pullonce for root, else $XDG_DATA_HOME/pullonce)
  PULLONCE_NATS_URL   the bus (default: that of the `pullonce up` of this home)
  PULLONCE_STORE      the store, where --store does not say (default: default)
"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal lets it be, with the epilogue as it was written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Command:
    """One command: what it is called in help, which function carries it out (`module:name`), and what it accepts."""

    __slots__ = ("fill", "handler", "help")

    def __init__(self, help: str, handler: str, fill: "Callable[[argparse.ArgumentParser], None]") -> None:
        self.help = help
        self.handler = handler
        self.fill = fill

    def parser(self, name: str) -> argparse.ArgumentParser:
        made = argparse.ArgumentParser(
            prog=f"pullonce {name}", description=self.help, formatter_class=Formatter, epilog=EXIT_CODES
        )
        made.add_argument("--home", metavar="DIR", type=os.path.abspath, help="home directory (default: PULLONCE_HOME)")
        self.fill(made)
        return made


def _up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nats-url", metavar="URL", default="", help="use this NATS server instead of starting one")
    _store(up)
    for part in ("coordinators", "fetchers", "unpackers"):
        up.add_argument(f"--{part}", metavar="N", type=_count, default=1, help=f"how many {part} to run (default 1)")
    up.add_argument("--no-ledger", dest="ledger", action="store_false", help="keep no history; nothing else needs it")
    up.add_argument(
        "--gateway", action=argparse.BooleanOptionalAction, default=None,
        help="serve containerd and others by the gateway (default: where it can, as root)",
    )  # fmt: skip
    up.add_argument("--temporary", action="store_true", help=argparse.SUPPRESS)


def _pull(pull: argparse.ArgumentParser) -> None:
    pull.add_argument("reference", metavar="REF", help="image reference, such as redis:7 or ghcr.io/owner/app@sha256:…")
    pull.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant] (default: the store's machine)")
    _store(pull)
    pull.add_argument("--credential", metavar="NAME", type=_credential, default="", help="a credential that the fetcher knows")
    pull.add_argument(
        "--policy", choices=("always", "if-not-present"), default="always",
        help="ask the registry what the tag names now (always), or only where the image is not there (if-not-present)",
    )  # fmt: skip
    pull.add_argument("--no-unpack", dest="unpack", action="store_false", help="fetch only; make no snapshots")
    pull.add_argument("--timeout", metavar="S", type=_seconds, help="give up waiting after S seconds")
    pull.add_argument("--json", action="store_true", help="print the ending event as it is")
    pull.add_argument("-q", "--quiet", action="store_true", help="no progress, even on a terminal")


def _images(images: argparse.ArgumentParser) -> None:
    _store(images)
    images.add_argument("--json", action="store_true", help="print JSON")


def _image(sub: argparse.ArgumentParser) -> None:
    _store(sub)
    sub.add_argument("reference", metavar="REF", help="image reference")
    sub.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant], where several are present")


def _mounts(mounts: argparse.ArgumentParser) -> None:
    _image(mounts)
    mounts.add_argument("--json", action="store_true", help="print JSON")


def _mount(mount: argparse.ArgumentParser) -> None:
    _image(mount)
    mount.add_argument("directory", metavar="DIR", help="where to mount it")
    mount.add_argument("--suid", action="store_true", help="let programs of the image run as other users (without: nosuid)")
    mount.add_argument("--dev", action="store_true", help="let its device nodes lead to devices (without: nodev)")


def _export(export: argparse.ArgumentParser) -> None:
    _store(export)
    export.add_argument("references", metavar="REF", nargs="+", help="image references")
    export.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant], where several are present")
    export.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive to write; `-`: standard output")


def _import(sub: argparse.ArgumentParser) -> None:
    _store(sub)
    sub.add_argument("archive", metavar="FILE", help="a tar of `docker save`, `podman save`, `ctr images export`, skopeo or "
                     "`pullonce export`; a directory with an image layout; `-`: a tar from standard input")  # fmt: skip
    sub.add_argument("--name", metavar="REF", default="", help="the reference to list it under (default: the archive's own)")
    sub.add_argument("--no-unpack", dest="unpack", action="store_false", help="list it only; make no snapshots")


def _umount(umount: argparse.ArgumentParser) -> None:
    umount.add_argument("directory", metavar="DIR", help="where it is mounted")


def _status(status: argparse.ArgumentParser) -> None:
    status.add_argument("--json", action="store_true", help="print JSON")


def _events(events: argparse.ArgumentParser) -> None:
    events.add_argument("-f", "--follow", action="store_true", help="go on with new ones until interrupted")
    events.add_argument("--since", metavar="SEQ", type=_count, default=1, help="begin at this sequence number (default 1)")
    events.add_argument("--json", action="store_true", help="one JSON object a line")


def _history(history: argparse.ArgumentParser) -> None:
    history.add_argument("reference", metavar="REF", nargs="?", default="", help="only pulls of this image")
    history.add_argument("--failed", action="store_true", help="only pulls that failed")
    history.add_argument(
        "--search",
        metavar="TEXT",
        default="",
        help="only pulls with this in their image's name, or in that of somebody who asked",
    )
    _since(history)
    _rows(history)


def _stats(stats: argparse.ArgumentParser) -> None:
    stats.add_argument("reference", metavar="REF", nargs="?", default="", help="only pulls of this image")
    groups = ("all", "image", "registry", "store", "day", "hour")
    stats.add_argument("--by", choices=groups, default="all", help="one row a group (default: all together)")
    _since(stats)
    _rows(stats)


def _explain(explain: argparse.ArgumentParser) -> None:
    explain.add_argument("pull", metavar="PULL", help="an image (its latest pull), a flight, or the number of a request")
    explain.add_argument("--json", action="store_true", help="print JSON")


def _sql(sql: argparse.ArgumentParser) -> None:
    sql.add_argument("query", metavar="QUERY", help="one SELECT over the tables of docs/ledger.md")
    sql.add_argument("--limit", metavar="N", type=_count, default=1000, help="rows at most (default 1000)")
    sql.add_argument("--json", action="store_true", help="print JSON")


def _ledger(ledger: argparse.ArgumentParser) -> None:
    ledger.add_argument(
        "action", choices=("rebuild", "export"),
        help="rebuild: make the tables anew from the log; export: write them as Parquet on the ledger's machine",
    )  # fmt: skip
    ledger.add_argument("--before", metavar="DAY", default="", help="export only what happened before that day")
    ledger.add_argument("--roll-up", action="store_true", help="then keep of it one row a day, store and image")
    ledger.add_argument("--json", action="store_true", help="print JSON")


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
        "--store", metavar="NAME", type=_name, action="append", help="init: a store (default: default; repeatable)"
    )
    bus.add_argument("--name", action="append", default=[], help="init: further name of the server, for its certificate")
    bus.add_argument("--at", metavar="DIR", default="", help="init: where the files will lie when used (default: DIR)")
    bus.add_argument("--data", metavar="DIR", default="", help="init: directory of the server's streams")
    bus.add_argument(
        "--monitoring", metavar="HOST:PORT", default="127.0.0.1:8222",
        help="init: where the server tells of itself by HTTP, nowhere if empty (default 127.0.0.1:8222)",
    )  # fmt: skip
    bus.add_argument("--owner", metavar="USER[:GROUP]", default="", help="init: whom the credentials belong to")


def _completion(completion: argparse.ArgumentParser) -> None:
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to write a script for")


def _since(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--since", metavar="WHEN", default="", help="from then on: 2h, 3d, 2026-11-24, 2026-11-24T18:00")


def _rows(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--limit", metavar="N", type=_count, default=50, help="rows at most (default 50)")
    sub.add_argument("--json", action="store_true", help="print JSON")


def _lifecycle(sub: argparse.ArgumentParser) -> None:
    fill = f"fill_{sub.prog.split()[-1].removeprefix('un')}"
    getattr(import_module("pullonce.cli.caretaking"), fill)(sub)
    _store(sub)


def _store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--store", metavar="NAME", type=_name, default=environment.store(), help="store (default: PULLONCE_STORE)")


COMMANDS = {
    "up": Command("run nats-server and all services in the foreground, until Ctrl-C", "service:up", _up),
    "ping": Command("exit 0 when every part answers; name what is missing otherwise", "service:ping", _store),
    "pull": Command("pull an image; joins whoever is pulling it already", "pull:pull", _pull),
    "images": Command("list the images of a store on this machine", "store:images", _images),
    "mounts": Command("print the overlay mount of an image's snapshot", "store:mounts", _mounts),
    "mount": Command("mount an image's snapshot, read-only, on a directory", "store:mount", _mount),
    "export": Command(
        "write images as one archive for docker, podman, containerd and skopeo", "exchange:export_images", _export
    ),
    "import": Command("read an archive of images into a store", "exchange:import_images", _import),
    "umount": Command("unmount a directory", "store:umount", _umount),
    "rm": Command("take an image off the list of a store", "caretaking:rm", _lifecycle),
    "pin": Command("keep an image, whatever is collected", "caretaking:pin", _lifecycle),
    "unpin": Command("let a pinned image go with the others", "caretaking:unpin", _lifecycle),
    "gc": Command("remove what no image and no pull needs", "caretaking:gc", _lifecycle),
    "verify": Command("read a store again; take out what is damaged", "caretaking:verify", _lifecycle),
    "status": Command("show the flights in flight, and what each waits for", "status:status", _status),
    "events": Command("print the stored events", "status:events", _events),
    "history": Command("list the pulls there were, the newest first", "ledger:history", _history),
    "stats": Command("show what was asked for, what it cost and how long it took", "ledger:stats", _stats),
    "explain": Command("tell where the time of a pull went, ended or not", "ledger:explain", _explain),
    "sql": Command("ask the ledger anything else, in SQL", "ledger:sql", _sql),
    "ledger": Command("rebuild the ledger from the log, or export it", "ledger:ledger", _ledger),
    "bus": Command("configure a NATS server with a user for each role, and make its streams", "bus:bus", _bus),
    "completion": Command("print a script by which a shell completes these commands", "completion:completion", _completion),
}


def read(words: "list[str]") -> "tuple[str, argparse.Namespace] | None":
    """What is to carry a command line out (`module:name`), and its arguments; None for one that names no command.

    Leaves by SystemExit where it is wrong, or asks for help.
    """
    if not words or words[0] not in COMMANDS:
        return None
    # One command's parser, not all: building the others would cost each pull as much as its whole conversation.
    command = COMMANDS[words[0]]
    return command.handler, command.parser(words[0]).parse_args(words[1:])


def without_command(words: "list[str]") -> bool:
    """Say help, the version, or what is wrong; False for the last."""
    top = argparse.ArgumentParser(
        prog="pullonce", formatter_class=Formatter, epilog=f"{EXIT_CODES}\n{ENVIRONMENT}",
        description="Pull container images once, however many ask for them at once.",
    )  # fmt: skip
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(metavar="COMMAND", title="commands (pullonce COMMAND --help tells more)")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help)
    if top.parse_args(words).version:
        from pullonce.process.runtime import version

        print(f"pullonce {version()}")
        return True
    top.print_help(sys.stderr)
    return False


def _name(text: str) -> str:
    if text and not (len(text) <= 64 and text.isascii() and all(c.isalnum() or c in "-_" for c in text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 64 letters, digits, `-` or `_`")
    return text


def _credential(text: str) -> str:
    return _name(text) if text else ""


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value

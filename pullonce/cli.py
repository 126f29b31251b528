"""The command `pullonce`: arguments in, exit code out. Each command loads what it needs only when it runs."""

import argparse
import os
import sys

from pullonce import environment
from pullonce.errors import BusError, PlatformInvalid, PullFailed, PullonceError, PullTimeout, ReferenceInvalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, FAILED, USAGE, NO_SERVICE = 0, 1, 2, 3
INTERRUPTED = 130

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


def parser() -> argparse.ArgumentParser:
    """The command line as one parser; `handler` names the function that carries a command out."""
    top = argparse.ArgumentParser(
        prog="pullonce", formatter_class=Formatter, epilog=f"{EXIT_CODES}\n{ENVIRONMENT}",
        description="Pull container images once, however many ask for them at once.",
    )  # fmt: skip
    top.add_argument("--version", action="store_true", help="print the version and exit")
    # The name is given, since working it out loads a quarter of the standard library.
    commands = top.add_subparsers(prog="pullonce", metavar="COMMAND", dest="command")

    def command(name: str, handler: str, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, formatter_class=Formatter, epilog=EXIT_CODES)
        sub.set_defaults(handler=handler)
        sub.add_argument("--home", metavar="DIR", type=os.path.abspath, help="home directory (default: PULLONCE_HOME)")
        return sub

    _service_commands(command)
    _pull_command(command)
    _store_commands(command)
    _look_commands(command)
    return top


def _service_commands(command: "Command") -> None:
    up = command("up", "pullonce.cli_service:up", "run nats-server and all services in the foreground, until Ctrl-C")
    up.add_argument("--nats-url", metavar="URL", default="", help="use this NATS server instead of starting one")
    _store(up)
    for part in ("coordinators", "fetchers", "unpackers"):
        up.add_argument(f"--{part}", metavar="N", type=_count, default=1, help=f"how many {part} to run (default 1)")
    up.add_argument("--temporary", action="store_true", help=argparse.SUPPRESS)
    ping = command("ping", "pullonce.cli_service:ping", "exit 0 when every part answers; name what is missing otherwise")
    _store(ping)


def _pull_command(command: "Command") -> None:
    pull = command("pull", "pullonce.cli_pull:pull", "pull an image; joins whoever is pulling it already")
    pull.add_argument("reference", metavar="REF", help="image reference, such as redis:7 or ghcr.io/owner/app@sha256:…")
    pull.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant] (default: the store's machine)")
    _store(pull)
    pull.add_argument("--credential", metavar="NAME", default="", help="a credential that the fetcher knows by this name")
    pull.add_argument(
        "--policy", choices=("always", "if-not-present"), default="always", help="ask the registry, or not if present"
    )
    pull.add_argument("--no-unpack", dest="unpack", action="store_false", help="fetch only; make no snapshots")
    pull.add_argument("--timeout", metavar="S", type=_seconds, help="give up waiting after S seconds")
    pull.add_argument("--json", action="store_true", help="print the ending event as it is")
    pull.add_argument("-q", "--quiet", action="store_true", help="no progress, even on a terminal")


def _store_commands(command: "Command") -> None:
    images = command("images", "pullonce.cli_store:images", "list the images of a store on this machine")
    mounts = command("mounts", "pullonce.cli_store:mounts", "print the overlay mount of an image's snapshot")
    mount = command("mount", "pullonce.cli_store:mount", "mount an image's snapshot, read-only, on a directory")
    for each in (images, mounts, mount):
        _store(each)
    for each in (mounts, mount):
        each.add_argument("reference", metavar="REF", help="image reference")
        each.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant], where several are present")
    for each in (images, mounts):
        each.add_argument("--json", action="store_true", help="print JSON")
    mount.add_argument("directory", metavar="DIR", help="where to mount it")
    umount = command("umount", "pullonce.cli_store:umount", "unmount a directory")
    umount.add_argument("directory", metavar="DIR", help="where it is mounted")


def _look_commands(command: "Command") -> None:
    status = command("status", "pullonce.cli_look:status", "show the flights in the air, and what each waits for")
    status.add_argument("--json", action="store_true", help="print JSON")
    events = command("events", "pullonce.cli_look:events", "print the stored events")
    events.add_argument("-f", "--follow", action="store_true", help="go on with new ones until interrupted")
    events.add_argument("--since", metavar="SEQ", type=_count, default=1, help="begin at this sequence number (default 1)")
    events.add_argument("--json", action="store_true", help="one JSON object a line")


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command and return its exit code; whatever goes wrong becomes one clear line on stderr."""
    top = parser()
    args = top.parse_args(argv)
    if args.version:
        from pullonce.runtime import version

        print(f"pullonce {version()}")
        return DONE
    if args.command is None:
        top.print_help(sys.stderr)
        return USAGE
    if args.home:
        os.environ["PULLONCE_HOME"] = args.home
    args.home = environment.home()
    try:
        return int(_load(args.handler)(args))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has enough. Python would complain once more at exit, when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (PullonceError, ValueError) as exc:
        return _say(exc)


def _load(handler: str) -> "Handler":
    module, _, name = handler.partition(":")
    # Not importlib: it would cost the light commands a tenth of their start.
    return getattr(__import__(module, fromlist=[name]), name)  # type: ignore[no-any-return]


def _say(exc: Exception) -> int:
    """One line for people, and the exit code that fits."""
    match exc:
        case PullFailed():
            print(f"pullonce: {exc.code}: {exc}", file=sys.stderr)
            return FAILED
        case ReferenceInvalid() | PlatformInvalid():
            code = USAGE
        case BusError() | PullTimeout():
            code = NO_SERVICE
        case PullonceError():
            code = FAILED
        case _ if type(exc).__name__ == "SettingInvalid":
            code = USAGE
        case _:
            raise exc
    print(f"pullonce: {exc}", file=sys.stderr)
    return code


def _store(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--store", metavar="NAME", type=_name, default=environment.store(), help="the store (default: PULLONCE_STORE)"
    )


def _name(text: str) -> str:
    if not (0 < len(text) <= 64 and text.isascii() and all(c.isalnum() or c in "-_" for c in text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 64 letters, digits, `-` or `_`")
    return text


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


if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[[str, str, str], argparse.ArgumentParser]
    Handler = Callable[[argparse.Namespace], int]

if __name__ == "__main__":
    sys.exit(main())

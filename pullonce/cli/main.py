"""The command `pullonce`: arguments in, exit code out. Each command loads what it needs only when it runs."""

import os
import sys

from pullonce import environment
from pullonce.cli import fast_path
from pullonce.errors import BusError, LedgerRefused, PlatformInvalid, PullFailed, PullonceError, PullTimeout, ReferenceInvalid
from pullonce.printable import PrintableStream, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

DONE, FAILED, USAGE, NO_SERVICE = 0, 1, 2, 3
INTERRUPTED = 130


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run one command and return its exit code; whatever goes wrong becomes one clear line on stderr.

    Whatever is printed meanwhile commands no terminal: what others say is printable in each view, and this is for what was
    missed.
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(PrintableStream, streams)
    try:
        return _run(argv)
    finally:
        sys.stdout, sys.stderr = streams


def _run(argv: "Sequence[str] | None") -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    found = fast_path.read(words) or _read(words)
    if found is None:
        from pullonce.cli.commands import without_command

        return DONE if without_command(words) else USAGE
    handler, args = found
    if args.home:
        os.environ["PULLONCE_HOME"] = args.home
    args.home = environment.home()
    try:
        return int(_load(handler)(args))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return DONE  # whoever read us has enough
    except (PullonceError, ValueError) as exc:
        return _say(exc)


def entry() -> "NoReturn":
    """The installed command: `main`, then out without taking the interpreter apart, an eighth of a light command's time."""
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass
    os._exit(code)


def _read(words: "list[str]") -> "tuple[str, Any] | None":
    from pullonce.cli.commands import read

    return read(words)


def _load(handler: str) -> "Callable[[Any], int]":
    module, _, name = handler.partition(":")
    # Not importlib: it would cost the light commands a tenth of their start.
    return getattr(__import__(f"pullonce.cli.{module}", fromlist=[name]), name)  # type: ignore[no-any-return]


def _say(exc: Exception) -> int:
    """One line for people, and the exit code that fits."""
    match exc:
        case PullFailed():
            print(f"pullonce: {printable(exc.code)}: {printable(str(exc))}", file=sys.stderr)
            return FAILED
        case ReferenceInvalid() | PlatformInvalid():
            code = USAGE
        case LedgerRefused(code=said) if said.endswith(".invalid"):
            code = USAGE
        case BusError() | PullTimeout():
            code = NO_SERVICE
        case PullonceError():
            code = USAGE if exc.usage else FAILED
        case _ if type(exc).__name__ == "SettingInvalid":
            code = USAGE
        case _:
            raise exc
    print(f"pullonce: {printable(str(exc))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    entry()

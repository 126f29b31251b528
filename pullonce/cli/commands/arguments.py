"""What the commands' arguments have in common: how one is declared, the arguments that several have, the types of values."""

import argparse
import os

from pullonce import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EXIT_CODES = """\
exit codes:
  0    done
  1    failed; the reason is on stderr
  2    usage: an argument, a reference or a setting cannot be used
  3    no service answers, or the time given with --timeout passed
  130  interrupted (a pull that was waited for is withdrawn)
"""

_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal lets it be, with the epilogue as it was written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


class Command:
    """One command: what it is called in help, which function carries it out, and what it accepts.

    Args:
        handler: `module:name` below `pullonce.cli`; it is loaded only to run, and gets what `fill` declared.
    """

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

    def read(self, name: str, words: "list[str]") -> argparse.Namespace:
        """The arguments in the words behind its name."""
        return self.parser(name).parse_args(words)


def subcommands(parser: argparse.ArgumentParser, commands: "Mapping[str, Command]") -> None:
    """Give a command commands of its own, one of which must be said; the handler is that of the one that was."""
    below = parser.add_subparsers(metavar="COMMAND", required=True, title=f"commands ({parser.prog} COMMAND --help tells more)")
    for name, command in commands.items():
        made = below.add_parser(name, help=command.help, description=command.help, formatter_class=Formatter, epilog=EXIT_CODES)
        made.add_argument(
            "--home", metavar="DIR", type=os.path.abspath, default=argparse.SUPPRESS,
            help="home directory (default: PULLONCE_HOME)",
        )  # fmt: skip
        made.set_defaults(handler=command.handler)
        command.fill(made)


def store(sub: argparse.ArgumentParser) -> None:
    """`--store`, for what concerns one store."""
    sub.add_argument(
        "--store", metavar="NAME", type=plain_name, default=environment.store(), help="store (default: PULLONCE_STORE)"
    )


def plain_name(text: str) -> str:
    """A store or a credential."""
    if text and not (len(text) <= 64 and text.isascii() and all(c.isalnum() or c in "-_" for c in text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to 64 letters, digits, `-` or `_`")
    return text


def credential(text: str) -> str:
    """The name of a credential, or nothing for none."""
    return plain_name(text) if text else ""


def count(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def number(text: str) -> float:
    """A number from 0 up."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e18:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 up")
    return value


def seconds(text: str) -> float:
    """A time that is to pass, in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def size(text: str) -> int:
    """Bytes, with K, M, G or T of thousands."""
    amount, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _SIZES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 5000000000, 500M or 20G")
    return int(number(amount) * _SIZES[unit])

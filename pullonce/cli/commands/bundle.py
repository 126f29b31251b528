"""`pullonce bundle`, `unbundle` and `bundles`: what they accept."""

import argparse

from pullonce.cli.commands.arguments import Command, credential, seconds, store


class _Bundle(Command):
    """Options may stand between REF and DIR; what follows `--` is the container's and not read here."""

    def read(self, name: str, words: "list[str]") -> argparse.Namespace:
        cut = words.index("--") if "--" in words else len(words)
        args = self.parser(name).parse_intermixed_args(words[:cut])
        args.arguments = words[cut + 1 :]
        return args


def _bundle(sub: argparse.ArgumentParser) -> None:
    sub.usage = "%(prog)s [options] REF DIR [-- ARGS...]\n       %(prog)s --remount DIR..."
    sub.add_argument(
        "words", metavar="REF DIR", nargs="+",
        help="image reference, pulled where it is not there, and the directory to make; arguments that follow `--` stand in "
        "place of the image's command",
    )  # fmt: skip
    sub.add_argument("--remount", action="store_true", help="mount finished bundles again, after a reboot say")
    sub.add_argument("--read-only", action="store_true", help="mount the root so that nothing can be written")
    store(sub)
    _process(sub)
    _isolation(sub)
    _image(sub)


def _process(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("the process (default: as the image says)")
    group.add_argument(
        "--args", metavar="COMMAND", action="append", default=[],
        help="the whole command, in place of the image's entrypoint and command: as a shell takes it apart, or a JSON list; "
        "said several times: a word each",
    )  # fmt: skip
    group.add_argument("--env", "-e", metavar="NAME[=VALUE]", action="append", default=[], help="a variable (repeatable)")
    group.add_argument("--cwd", "-w", metavar="PATH", default="", help="working directory")
    group.add_argument("--user", "-u", metavar="USER[:GROUP]", default="", help="names of the image's own files, or numbers")
    group.add_argument("--tty", "-t", action="store_true", help="a terminal")


def _isolation(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("what keeps it apart")
    for name, default in (("net", "one without a way out"), ("pid", "its own"), ("ipc", "its own"), ("uts", "its own")):
        group.add_argument(
            f"--{name}", metavar="NAMESPACE", default="private",
            help=f"private, host, or the path of a namespace (default: {default})",
        )  # fmt: skip
    group.add_argument(
        "--uidmap", metavar="CONTAINER:HOST:SIZE", action="append", default=[],
        help="a user namespace: ids of the container and as many of this machine (repeatable)",
    )  # fmt: skip
    group.add_argument(
        "--gidmap", metavar="CONTAINER:HOST:SIZE", action="append", default=[], help="those of groups (default: as of users)"
    )
    group.add_argument("--hostname", metavar="NAME", default="", help="host name (default: this machine's)")
    group.add_argument("--mount", metavar="type=bind,src=PATH,dst=PATH[,ro]", action="append", default=[], help="(repeatable)")
    group.add_argument("--cap-add", metavar="CAPABILITY", action="append", default=[], help="such as NET_ADMIN, or ALL")
    group.add_argument("--cap-drop", metavar="CAPABILITY", action="append", default=[], help="such as NET_RAW, or ALL")
    group.add_argument("--new-privileges", action="store_true", help="let set-id programs such as sudo work")


def _image(sub: argparse.ArgumentParser) -> None:
    group = sub.add_argument_group("the image")
    group.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant] (default: this machine's)")
    group.add_argument(
        "--policy", choices=("if-not-present", "always", "never"), default="if-not-present",
        help="when to ask the registry (default: only where the image is not there)",
    )  # fmt: skip
    group.add_argument("--credential", metavar="NAME", type=credential, default="", help="a credential that the fetcher knows")
    group.add_argument("--timeout", metavar="S", type=seconds, help="give up waiting for a pull after S seconds")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress, even on a terminal")


def _unbundle(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("directories", metavar="DIR", nargs="+", help="a bundle; what was written in it goes with it")
    sub.add_argument("--force", action="store_true", help="even while something uses it")
    store(sub)


def _bundles(sub: argparse.ArgumentParser) -> None:
    store(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")


COMMANDS = {
    "bundle": _Bundle("make a directory of an image that `runc run` starts, with a root of its own", "bundle:bundle", _bundle),
    "unbundle": Command("unmount and remove bundles, and let their layers go", "bundle:unbundle", _unbundle),
    "bundles": Command("list the bundles of a store", "bundle:bundles", _bundles),
}

"""Pulling an image."""

import argparse

from pullonce.cli.commands.arguments import Command, credential, seconds, store


def _pull(pull: argparse.ArgumentParser) -> None:
    pull.add_argument("reference", metavar="REF", help="image reference, such as redis:7 or ghcr.io/owner/app@sha256:…")
    pull.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant] (default: the store's machine)")
    store(pull)
    pull.add_argument("--credential", metavar="NAME", type=credential, default="", help="a credential that the fetcher knows")
    pull.add_argument(
        "--policy", choices=("always", "if-not-present"), default="always",
        help="ask the registry what the tag names now (always), or only where the image is not there (if-not-present)",
    )  # fmt: skip
    pull.add_argument("--no-unpack", dest="unpack", action="store_false", help="fetch only; make no snapshots")
    pull.add_argument("--timeout", metavar="S", type=seconds, help="give up waiting after S seconds")
    pull.add_argument("--json", action="store_true", help="print the ending event as it is")
    pull.add_argument("-q", "--quiet", action="store_true", help="no progress, even on a terminal")


COMMANDS = {
    "pull": Command("pull an image; joins whoever is pulling it already", "pull:pull", _pull),
}

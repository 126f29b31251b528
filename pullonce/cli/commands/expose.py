"""Images of a store in its view for podman and others, and out of it."""

import argparse

from pullonce.cli.commands.arguments import Command, store


def _expose(sub: argparse.ArgumentParser) -> None:
    _images(sub, "image references; without any: list what is exposed")
    sub.add_argument(
        "--pull", action="store_true", help="pull what is not in the store (always: `pullonce pull REF && pullonce expose REF`)"
    )
    sub.add_argument("--json", action="store_true", help="print what is exposed, as JSON")


def _unexpose(sub: argparse.ArgumentParser) -> None:
    _images(sub, "image references")
    sub.add_argument("--force", action="store_true", help="also what podman's own containers and images are built on")


def _images(sub: argparse.ArgumentParser, references: str) -> None:
    store(sub)
    sub.add_argument("references", metavar="REF", nargs="*", help=references)
    sub.add_argument("--all", action="store_true", help="all that there are now; what is pulled later is not")
    sub.add_argument("--platform", metavar="OS/ARCH", default="", help="only that platform (default: all that are there)")


COMMANDS = {
    "expose": Command("show images to podman, CRI-O, buildah and skopeo, without a copy", "expose:expose", _expose),
    "unexpose": Command("take images out of the view that podman and others have", "expose:unexpose", _unexpose),
}

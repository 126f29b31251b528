"""What becomes of a store after the pulls."""

import argparse

from pullonce.cli.commands.arguments import Command, number, size, store


def _rm(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("reference", metavar="REF", help="image reference")
    sub.add_argument("--platform", metavar="OS/ARCH", default="", help="only that platform (default: all that are listed)")
    sub.add_argument("--json", action="store_true", help="print what was listed, as JSON")
    store(sub)


def _pin(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "reference", metavar="REF", nargs="?", default="", help="image reference; without one: show what is pinned"
    )
    sub.add_argument("--json", action="store_true", help="print the pinned references, as JSON")
    store(sub)


def _gc(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    sub.add_argument("--keep-days", metavar="N", type=number, help="images not pulled for N days go off the list")
    sub.add_argument(
        "--max-bytes", metavar="N", type=size,
        help="the images not pulled for longest go, until the rest needs at most N bytes (also 500M, 20G, 1T)",
    )  # fmt: skip
    sub.add_argument(
        "--partial-hours", metavar="N", type=number, default=24.0,
        help="downloads and unpacks that nobody went on with for N hours go (default 24)",
    )  # fmt: skip
    sub.add_argument("--json", action="store_true", help="print the report as JSON")
    store(sub)


def _verify(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--repair", action="store_true", help="pull at once what was taken off the list, now or by an earlier verification"
    )
    sub.add_argument("--blobs-only", action="store_true", help="do not unpack layers again to compare the snapshots")
    sub.add_argument(
        "--rate", metavar="N", type=size, default=0, help="bytes of blobs to read a second (also 100M; default: all)"
    )
    sub.add_argument("--json", action="store_true", help="print the report as JSON")
    store(sub)


COMMANDS = {
    "rm": Command("take an image off the list of a store", "caretaking:rm", _rm),
    "pin": Command("keep an image, whatever is collected", "caretaking:pin", _pin),
    "unpin": Command("let a pinned image go with the others", "caretaking:unpin", _pin),
    "gc": Command("remove what no image and no pull needs", "caretaking:gc", _gc),
    "verify": Command("read a store again; take out what is damaged", "caretaking:verify", _verify),
}

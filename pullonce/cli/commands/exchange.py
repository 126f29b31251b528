"""Archives of images, written and read."""

import argparse

from pullonce.cli.commands.arguments import Command, store


def _export(export: argparse.ArgumentParser) -> None:
    store(export)
    export.add_argument("references", metavar="REF", nargs="+", help="image references")
    export.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant], where several are present")
    export.add_argument("-o", "--output", metavar="FILE", required=True, help="the archive to write; `-`: standard output")


def _import(sub: argparse.ArgumentParser) -> None:
    store(sub)
    sub.add_argument("archive", metavar="FILE", help="a tar of `docker save`, `podman save`, `ctr images export`, skopeo or "
                     "`pullonce export`; a directory with an image layout; `-`: a tar from standard input")  # fmt: skip
    sub.add_argument("--name", metavar="REF", default="", help="the reference to list it under (default: the archive's own)")
    sub.add_argument("--no-unpack", dest="unpack", action="store_false", help="list it only; make no snapshots")


COMMANDS = {
    "export": Command(
        "write images as one archive for docker, podman, containerd and skopeo", "exchange:export_images", _export
    ),
    "import": Command("read an archive of images into a store", "exchange:import_images", _import),
}

"""Archives of images, written and read."""

import argparse

from pullonce.cli.commands.arguments import Command, credential, store


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


def _push(push: argparse.ArgumentParser) -> None:
    store(push)
    push.add_argument("reference", metavar="REF", help="what the store lists it under")
    push.add_argument("target", metavar="TARGET", nargs="?", default="", help="where to (default: what REF itself names)")
    push.add_argument("--platform", metavar="OS/ARCH", default="", help="os/arch[/variant] (default: the store's machine)")
    push.add_argument(
        "--all-platforms", action="store_true",
        help="the index that REF named, with all that it lists (default: the image of one platform)",
    )  # fmt: skip
    push.add_argument(
        "--nondistributable", action="store_true",
        help="push layers too that their publisher does not let registries pass on (Windows bases); else they are left out",
    )  # fmt: skip
    push.add_argument("--credential", metavar="NAME", type=credential, default="", help="a credential that the fetcher knows")
    push.add_argument("--json", action="store_true", help="print what came of it, as JSON")
    push.add_argument("-q", "--quiet", action="store_true", help="no progress, even on a terminal")


COMMANDS = {
    "export": Command(
        "write images as one archive for docker, podman, containerd and skopeo", "exchange:export_images", _export
    ),
    "push": Command("push an image of a store to a registry", "push:push", _push),
    "import": Command("read an archive of images into a store", "exchange:import_images", _import),
}

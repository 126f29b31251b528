"""What lies in a store on this machine, listed and mounted."""

import argparse

from pullonce.cli.commands.arguments import Command, store


def _images(images: argparse.ArgumentParser) -> None:
    store(images)
    images.add_argument("--json", action="store_true", help="print JSON")


def _image(sub: argparse.ArgumentParser) -> None:
    store(sub)
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


def _umount(umount: argparse.ArgumentParser) -> None:
    umount.add_argument("directory", metavar="DIR", help="where it is mounted")


COMMANDS = {
    "images": Command("list the images of a store on this machine", "store:images", _images),
    "mounts": Command("print the overlay mount of an image's snapshot", "store:mounts", _mounts),
    "mount": Command("mount an image's snapshot, read-only, on a directory", "store:mount", _mount),
    "umount": Command("unmount a directory", "store:umount", _umount),
}

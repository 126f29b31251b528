"""`pullonce images`, `mounts`, `mount` and `umount`: what a store on this machine holds. No service is needed."""

import argparse
import json
import os
import shlex
from contextlib import nullcontext
from pathlib import Path

import msgspec

from pullonce.cli.columns import columns
from pullonce.config import store_root
from pullonce.errors import PullonceError
from pullonce.oci import reference
from pullonce.oci.platform import normalise
from pullonce.store.images import ImageRecord, Images
from pullonce.store.layout import EMPTY_TREE
from pullonce.store.mounting import mount as mount_overlay
from pullonce.store.mounting import unmount
from pullonce.store.snapshots import Overlay, Snapshots


class ImageMissing(PullonceError):
    """The store does not hold the image, or not in the form that is needed."""


def images(args: argparse.Namespace) -> int:
    """Carry out `pullonce images`."""
    records = Images(_root(args)).all()
    if args.json:
        print(json.dumps([msgspec.to_builtins(record) for record in records]))
        return 0
    rows = [("REFERENCE", "PLATFORM", "IMAGE ID", "DIGEST", "LAYERS")]
    rows += [
        (each.reference, each.platform, each.image_id[7:19], each.digest[7:19], str(len(each.chain_ids) or "not unpacked"))
        for each in records
    ]
    print("\n".join(columns(rows)))
    return 0


def mounts(args: argparse.Namespace) -> int:
    """Carry out `pullonce mounts`: everything but the target, which the caller adds."""
    overlay = _overlay(args)
    if args.json:
        print(json.dumps(overlay.describe()))
    else:
        print(shlex.join(overlay.arguments("")[:-1]))
    return 0


def mount(args: argparse.Namespace) -> int:
    """Carry out `pullonce mount`."""
    target = Path(args.directory)
    # Under the lock of the store: a collector sees the mount, or this finds the image gone.
    with Images(_root(args)).hold() if _root(args).is_dir() else nullcontext():
        mount_overlay(_overlay(args), target, suid=args.suid, dev=args.dev)
    return 0


def umount(args: argparse.Namespace) -> int:
    """Carry out `pullonce umount`."""
    unmount(Path(args.directory))
    return 0


def _root(args: argparse.Namespace) -> Path:
    return store_root(Path(args.home), args.store)


def _overlay(args: argparse.Namespace) -> Overlay:
    record = _image(args)
    if not record.chain_ids:
        raise ImageMissing(f"{record.reference} was not unpacked; pull it without --no-unpack")
    overlay = Snapshots(_root(args)).overlay(record.chain_ids[-1])
    # Where the top layer is the only one, its mount names an empty directory as a second one.
    empty = overlay.base / EMPTY_TREE
    if empty.name in overlay.names and os.access(overlay.base, os.W_OK):
        empty.mkdir(exist_ok=True)
    return overlay


def _image(args: argparse.Namespace) -> ImageRecord:
    """The image that is meant; see `find_images`."""
    return find_images(args, [args.reference])[0]


def find_images(args: argparse.Namespace, references: list[str]) -> list[ImageRecord]:
    """The images that are meant, one for each reference.

    Raises:
        ReferenceInvalid, PlatformInvalid: it cannot be read.
        ImageMissing: one is not there, or is for several platforms and nothing says which.
    """
    wanted = normalise(args.platform) if args.platform else ""
    chosen: list[ImageRecord] = []
    for name in (str(reference.parse(each)) for each in references):
        found = [record for record in Images(_root(args)).named(name) if not wanted or record.platform == wanted]
        if not found:
            raise ImageMissing(f"{name} is not in store {args.store} of {args.home}; pull it first")
        if len(found) > 1:
            there = ", ".join(record.platform for record in found)
            raise ImageMissing(f"{name} is there for several platforms; say which with --platform: {there}")
        chosen.append(found[0])
    return chosen

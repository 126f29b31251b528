"""`pullonce export` and `import`: images of a store as one archive that other tools load, and the way back."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from pullonce.cli import units
from pullonce.cli.caretaking import served
from pullonce.cli.percent import Percent
from pullonce.cli.store import find_images
from pullonce.client import connect
from pullonce.config import store_root
from pullonce.errors import PullonceError
from pullonce.exchange.export import appearing, export
from pullonce.exchange.holding import importing
from pullonce.exchange.load import load
from pullonce.exchange.read import ArchiveInvalid, FoundImage
from pullonce.exchange.sources import ArchiveSource, DirectorySource, TarSource
from pullonce.oci.reference import parse
from pullonce.store.content import ContentStore, open_store
from pullonce.store.images import ImageRecord
from pullonce.store.open_files import open_as_many_as_may_be
from pullonce.store.proofs import Proofs


def export_images(args: argparse.Namespace) -> int:
    """Carry out `pullonce export`."""
    content = ContentStore(store_root(Path(args.home), args.store))
    chosen = find_images(args, args.references)
    open_as_many_as_may_be()
    if args.output == "-":
        if sys.stdout.isatty():
            raise PullonceError("an archive is not for a terminal: name a file with -o, or redirect the output")
        try:
            export(content, chosen, sys.stdout.fileno(), lambda done, whole: None)
        except OSError as exc:
            raise PullonceError(f"the archive is not whole: standard output cannot be written: {exc.strerror}") from exc
        return 0
    path = Path(args.output)
    try:
        with appearing(path) as out:
            written = export(content, chosen, out, Percent())
    except OSError as exc:
        raise PullonceError(f"{path} cannot be written: {exc.strerror}") from exc
    print(f"{path}: {len(chosen)} image{'s' if len(chosen) > 1 else ''}, {units.amount(written)}")
    return 0


def import_images(args: argparse.Namespace) -> int:
    """Carry out `pullonce import`: read, list, and have it unpacked by the services."""
    content = open_store(store_root(Path(args.home), args.store))
    open_as_many_as_may_be()
    with importing(content) as hold:
        with _source(args.archive) as source:
            loaded = load(content, source, hold)
        images = _named(loaded.images, args.name)
        _list(content, images)
    for image in images:
        print(f"{image.reference}  {image.platform}  {image.config}")
    print(f"{len(loaded.fresh)} blobs ({units.amount(sum(loaded.fresh.values()))}) were new to store {args.store}")
    with served(args) as url:
        asyncio.run(_pull(args, url, images))
    return 0


def _list(content: ContentStore, images: list[FoundImage]) -> None:
    proofs = Proofs(content.root)
    for image in images:
        record = ImageRecord(
            reference=image.reference, platform=image.platform, digest=image.digest, manifest=image.manifest,
            image_id=image.config,
        )  # fmt: skip
        content.images.record(record, partial(_check, content, image))
        # Whoever may write the store gives what is in it; where it came from there may be no registry at all.
        proofs.give_to_all(parse(image.reference).name, image.digest)


@contextmanager
def _source(name: str) -> Iterator[ArchiveSource]:
    path = Path(name)
    if name == "-":
        yield TarSource(sys.stdin.buffer)
    elif path.is_dir():
        yield DirectorySource(path)
    else:
        if not path.exists():
            raise ArchiveInvalid(f"{path} is not there")
        if not (path.is_file() or path.is_fifo()):
            raise ArchiveInvalid(f"{path} is of a kind that holds no archive; expected a file, a pipe or a directory")
        with path.open("rb") as file:
            yield TarSource(file)


def _named(images: list[FoundImage], name: str) -> list[FoundImage]:
    """The images under the names that they get in the store.

    Raises:
        ReferenceInvalid: the name that was given is none.
        ArchiveInvalid: one has no name, or one name is given for several.
    """
    if name:
        given = str(parse(name))
        if len({image.digest for image in images}) > 1:
            raise ArchiveInvalid("the archive has several images: import it without --name, under the names that it has")
        images = [replace(image, reference=given) for image in images]
    for image in images:
        if not image.reference:
            raise ArchiveInvalid(f"the archive has no name for {image.digest}: give one with --name")
    return images


def _check(content: ContentStore, image: FoundImage) -> None:
    missing = [blob.digest for blob in image.blobs if not content.has(blob.digest)]
    if missing:
        raise ArchiveInvalid(f"{missing[0]} of {image.reference} was collected before it was listed: import it again")


async def _pull(args: argparse.Namespace, url: str, images: list[FoundImage]) -> None:
    """Have the images unpacked. Resolving them says what the disk holds now, which releases whoever else waits for it."""
    async with connect(url, name="pullonce import") as client:
        for image in images:
            await client.pull(
                image.reference, store=args.store, platform=image.platform, policy="if-not-present", unpack=args.unpack,
                requester="pullonce import", door="import",
            )  # fmt: skip

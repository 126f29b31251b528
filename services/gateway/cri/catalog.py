"""The images of a store, as the CRI names and describes them: read again when the list or a pin has changed."""

import asyncio
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pullonce.care.needs import Needs
from pullonce.care.things import Thing, Things
from pullonce.errors import Permanent, PullonceError
from pullonce.oci import go_json, platform, reference
from pullonce.oci.digest import chain_ids
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from pullonce.store.pins import Pins
from schemas.oci import Descriptor, DiffID, Digest, ImageConfig, Manifest
from services.gateway.protocols.images_pb2 import Image, Int64Value

_LONGEST = 16 << 20
"""Bytes of a document."""
_NUMBER = re.compile(r"[0-9]{1,18}")
"""What is read as a user's number. Source: Go's ParseInt, of 64 bits."""
_SHORTEST_ID = 4
"""Digits of an image ID that may stand for all of it."""


class _Process(msgspec.Struct):
    user: str = msgspec.field(default="", name="User")


class _Config(msgspec.Struct):
    """The part of an image's config that says whose its process is."""

    config: _Process | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the listed images take on the disk, what they share once."""

    size: int = 0
    """Bytes of blobs as stored, and of files as unpacked."""
    files: int = 0


@dataclass(slots=True)
class _Listing:
    """The list at one moment."""

    images: dict[str, Image] = field(default_factory=dict)
    """By ID."""
    records: dict[str, list[ImageRecord]] = field(default_factory=dict)
    """The same."""
    names: dict[str, str] = field(default_factory=dict)
    """Reference, or repository with digest, → ID."""
    usage: Usage = field(default_factory=Usage)


class Catalog:
    """What a store lists.

    Args:
        native: the platform that a name stands for where several are listed.
    """

    def __init__(self, content: ContentStore, native: str) -> None:
        self._content = content
        self._order = {name: rank for rank, name in enumerate(platform.preferences(native))}
        self._pins = Pins(content.root)
        self._needs = Needs(content)
        self._things = Things(content)
        self._sizes: dict[Thing, tuple[int, int]] = {}
        self._seen: object = None
        self._listing = _Listing()
        self._described: dict[tuple[str, str], Image | None] = {}
        self._lock = asyncio.Lock()

    async def all(self) -> list[Image]:
        """Every image whose documents are there."""
        return list((await self._read()).images.values())

    async def find(self, name: str) -> Image | None:
        """The image that is meant by a reference, with tag, digest or neither, or by an ID or its beginning."""
        listing = await self._read()
        return listing.images.get(_id(listing, name))

    async def records(self, image_id: str) -> list[ImageRecord]:
        """Under which references, and for which platforms, an image is listed."""
        return (await self._read()).records.get(image_id, [])

    async def usage(self) -> Usage:
        """What all of them take."""
        return (await self._read()).usage

    def info(self, image_id: str) -> str:
        """What is told of an image to who wants all of it, as JSON: its ChainID and its config.

        Raises:
            Permanent: the config is gone.
        """
        content = self._content.read(Digest(image_id), _LONGEST)
        config = go_json.decode(content, ImageConfig)
        top = chain_ids(map(DiffID, config.rootfs.diff_ids))[-1:]
        return json.dumps({"chainID": "".join(top), "imageSpec": go_json.parse(content)})

    async def _read(self) -> _Listing:
        layout = self._content.layout
        async with self._lock:
            seen = _stamp(layout.index), _stamp(layout.pins)
            if seen != self._seen:
                self._listing = await asyncio.to_thread(self._list)
                self._seen = seen
            return self._listing

    def _list(self) -> _Listing:
        listed, pins = self._content.images.all(), set(self._pins.all())
        listing = _Listing()
        # What fits this machine best comes first, and so has the name.
        for record in sorted(listed, key=lambda each: self._order.get(each.platform, len(self._order))):
            image = listing.images.get(record.image_id)
            if image is None:
                described = self._description(record)
                if described is None:
                    continue
                image = listing.images.setdefault(record.image_id, Image())
                image.CopyFrom(described)
            _name(image, record, pins)
            listing.records.setdefault(record.image_id, []).append(record)
            for name in (record.reference, by_digest(record)):
                listing.names.setdefault(name, record.image_id)
        listing.usage = self._usage(record for records in listing.records.values() for record in records)
        kept = {(each.image_id, each.manifest.digest) for each in listed}
        self._described = {key: image for key, image in self._described.items() if key in kept}
        return listing

    def _description(self, record: ImageRecord) -> Image | None:
        """An image without its names; None where it is not whole: then it is not there, and is pulled again."""
        key = (record.image_id, record.manifest.digest)
        if self._described.get(key) is None:
            self._described[key] = self._describe(record)
        return self._described[key]

    def _describe(self, record: ImageRecord) -> Image | None:
        try:
            manifest = go_json.decode(self._content.read(record.manifest.digest, _LONGEST), Manifest)
            config = go_json.decode(self._content.read(record.image_id, _LONGEST), _Config)
        except (Permanent, go_json.NoDocument):
            return None
        parts: tuple[Descriptor, ...] = (record.manifest, manifest.config, *manifest.layers)
        image = Image(id=record.image_id, size=sum(part.size for part in parts))
        _own(image, config.config.user if config.config else "")
        return image

    def _usage(self, records: Iterable[ImageRecord]) -> Usage:
        needed: set[Thing] = set()
        for record in records:
            needed |= self._needs.of_pull(record)
        for thing in needed - self._sizes.keys():
            self._sizes[thing] = self._things.measure(thing)
        self._sizes = {thing: self._sizes[thing] for thing in needed}
        return Usage(*(sum(column) for column in zip(*self._sizes.values(), strict=True)))


def by_digest(record: ImageRecord) -> str:
    """An image by its repository and what the reference named."""
    return f"{reference.parse(record.reference).name}@{record.digest}"


def _own(image: Image, user: str) -> None:
    """Say whose an image's process is: a number, or a name that only the image knows; root where its config says nothing."""
    user = user.partition(":")[0]
    if user and not _NUMBER.fullmatch(user):
        image.username = user
    else:
        image.uid.CopyFrom(Int64Value(value=int(user or 0)))


def _name(image: Image, record: ImageRecord, pins: set[str]) -> None:
    named = by_digest(record)
    if "@" not in record.reference and record.reference not in image.repo_tags:
        image.repo_tags.append(record.reference)
    if named not in image.repo_digests:
        image.repo_digests.append(named)
    image.pinned = image.pinned or record.reference in pins


def _id(listing: _Listing, name: str) -> str:
    """The ID of the image that is meant; empty where none is."""
    try:
        meant = reference.parse(name)
        named = (str(meant), f"{meant.name}@{meant.digest}")
    except PullonceError:
        named = ("", "")
    for each in named:
        if each in listing.names:
            return listing.names[each]
    digits = name.removeprefix("sha256:")
    found = [each for each in listing.images if each.startswith(f"sha256:{digits}")] if len(digits) >= _SHORTEST_ID else []
    return found[0] if len(found) == 1 else ""


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_mtime_ns, status.st_size

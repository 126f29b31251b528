"""Which content belongs to which repository, and how large it is: by what the log tells of images, else by the store's list.

A digest alone opens nothing: what a client is given is always content of a repository that it may have, and that content is
known by the manifest that names it. After a restart the manifests on the disk say the same.
"""

import asyncio
import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from pullonce.errors import Permanent, ReferenceInvalid
from pullonce.oci import go_json
from pullonce.oci.reference import parse
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from pullonce.store.uses import Uses
from schemas.events import PullResolved
from schemas.oci import Digest, Manifest

MANIFEST_LIMIT = 4 << 20
"""Bytes that a manifest may have."""
_IMAGES = 4000
"""Images whose content is remembered."""


@dataclass(frozen=True, slots=True)
class Content:
    """Some content of a repository."""

    size: int
    manifest: Digest
    """The manifest that names it, or that it is."""
    top: Digest
    """What the reference of that image named: an index, or the manifest itself."""


class Catalog:
    """The content of one store by repository (`registry/repository`)."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._uses = Uses(content.root)
        self._known: OrderedDict[tuple[str, Digest], dict[Digest, Content]] = OrderedDict()
        self._by_place: defaultdict[str, dict[Digest, Content]] = defaultdict(dict)
        self._listed: dict[str, set[tuple[Digest, Digest]]] = {}
        self._list_as_of: tuple[int, int, int] | None = None
        self._looking = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, event: PullResolved) -> None:
        """An image was resolved, for whomever."""
        found = {each.blob.digest: each.blob.size for each in event.layers} | {event.config.digest: event.config.size}
        self._add(
            f"{event.source.registry}/{event.source.repository}", event.manifest.digest, event.digest,
            found | {event.manifest.digest: event.manifest.size},
        )  # fmt: skip

    async def find(self, place: str, digest: Digest) -> Content | None:
        """What is known of some content of a repository; None where no manifest that is known names it."""
        if (found := self._by_place.get(place, {}).get(digest)) is not None:
            return found
        async with self._looking:  # the disk is asked by one at a time: anybody may ask for anything
            if (found := self._by_place.get(place, {}).get(digest)) is not None:
                return found
            for manifest, top, sizes in await asyncio.to_thread(self._read, place):
                self._add(place, manifest, top, sizes)
        return self._by_place.get(place, {}).get(digest)

    def _add(self, place: str, manifest: Digest, top: Digest, sizes: dict[Digest, int]) -> None:
        content = {digest: Content(size, manifest, top) for digest, size in sizes.items()}
        if top not in content:
            with contextlib.suppress(Permanent):
                content[top] = Content(self._content.size(top), manifest, top)
        key = (place, manifest)
        self._known[key] = content
        self._known.move_to_end(key)
        self._by_place[place].update(content)
        while len(self._known) > _IMAGES:
            self._forget(*self._known.popitem(last=False))

    def _forget(self, key: tuple[str, Digest], content: dict[Digest, Content]) -> None:
        there = self._by_place[key[0]]
        for digest, each in content.items():
            if there.get(digest) == each:
                del there[digest]
        if not there:
            del self._by_place[key[0]]

    # -- the disk; in a thread -----------------------------------------------------------------------------------------

    def _read(self, place: str) -> list[tuple[Digest, Digest, dict[Digest, int]]]:
        """The images of a repository that the disk knows: manifest, what the reference named, and sizes of all content."""
        found = set(self._list().get(place, ()))
        found |= {(use.image.manifest.digest, use.image.digest) for use in self._uses.all() if _place(use.image) == place}
        read = []
        for manifest, top in sorted(found):
            if (place, manifest) in self._known:
                continue
            with contextlib.suppress(Permanent, go_json.NoDocument):
                body = self._content.read(manifest, MANIFEST_LIMIT)
                read.append((manifest, top, {manifest: len(body), **dict(_named(body))}))
        return read

    def _list(self) -> dict[str, set[tuple[Digest, Digest]]]:
        """What is listed, by repository; read again where the list has changed."""
        try:
            status = self._content.layout.index.stat()
        except FileNotFoundError:
            return {}
        as_of = (status.st_ino, status.st_mtime_ns, status.st_size)
        if as_of != self._list_as_of:
            listed: defaultdict[str, set[tuple[Digest, Digest]]] = defaultdict(set)
            for image in self._content.images.all():
                listed[_place(image)].add((image.manifest.digest, image.digest))
            self._listed, self._list_as_of = dict(listed), as_of
        return self._listed


def _named(body: bytes) -> Iterator[tuple[Digest, int]]:
    """What a manifest names, and how large that is."""
    manifest = go_json.decode(body, Manifest)
    for each in (manifest.config, *manifest.layers):
        yield each.digest, each.size


def _place(image: ImageRecord) -> str:
    try:
        return parse(image.reference).name
    except ReferenceInvalid:
        return ""

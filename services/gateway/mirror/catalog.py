"""Which content belongs to which repository, and how large it is: by what the log tells of images, else by the store's list.

A digest alone opens nothing: what a client is given is always content of a repository that it may have, and that content is
known by the manifest that names it. After a restart the manifests on the disk say the same.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
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
_USED = 1.0
"""Seconds for which what pulls were resolved to is not read again."""
_Image = tuple[str, Digest, Digest]
"""Repository, manifest, and what the reference named."""


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
        self._known: OrderedDict[_Image, dict[Digest, Content]] = OrderedDict()
        self._by_place: dict[tuple[str, Digest], dict[_Image, Content]] = {}
        """The same by what is asked for; what was learnt last stands last."""
        self._listed: dict[str, set[tuple[Digest, Digest]]] = {}
        self._list_as_of: tuple[int, int, int] | None = None
        self._used: dict[str, set[tuple[Digest, Digest]]] = {}
        self._used_as_of = -_USED
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

    async def find(self, place: str, digest: Digest) -> list[Content]:
        """What is known of some content of a repository, by each image that has it, what was learnt last first.

        Empty where no manifest that is known names it.
        """
        if not self._of(place, digest):
            async with self._looking:  # the disk is asked by one at a time: anybody may ask for anything
                if not self._of(place, digest):
                    for manifest, top, sizes in await asyncio.to_thread(self._read, place):
                        self._add(place, manifest, top, sizes)
        return self._of(place, digest)

    def _of(self, place: str, digest: Digest) -> list[Content]:
        return list(reversed(self._by_place.get((place, digest), {}).values()))

    def _add(self, place: str, manifest: Digest, top: Digest, sizes: dict[Digest, int]) -> None:
        content = {digest: Content(size, manifest, top) for digest, size in sizes.items()}
        if top not in content:
            with contextlib.suppress(Permanent):
                content[top] = Content(self._content.size(top), manifest, top)
        image = (place, manifest, top)
        self._forget(image)
        self._known[image] = content
        for digest, each in content.items():
            self._by_place.setdefault((place, digest), {})[image] = each
        while len(self._known) > _IMAGES:
            self._forget(next(iter(self._known)))

    def _forget(self, image: _Image) -> None:
        for digest in self._known.pop(image, ()):
            there = self._by_place[image[0], digest]
            del there[image]
            if not there:
                del self._by_place[image[0], digest]

    # -- the disk; in a thread -----------------------------------------------------------------------------------------

    def _read(self, place: str) -> list[tuple[Digest, Digest, dict[Digest, int]]]:
        """The images of a repository that the disk knows: manifest, what the reference named, and sizes of all content."""
        read = []
        for manifest, top in sorted(self._list().get(place, set()) | self._use().get(place, set())):
            if (place, manifest, top) in self._known:
                continue
            with contextlib.suppress(Permanent, go_json.NoDocument):
                body = self._content.read(manifest, MANIFEST_LIMIT)
                read.append((manifest, top, {manifest: len(body), **dict(_named(body))}))
        return read

    def _use(self) -> dict[str, set[tuple[Digest, Digest]]]:
        """What pulls were resolved to, by repository, as of a moment ago: there may be thousands, and anybody may ask."""
        if time.monotonic() - self._used_as_of >= _USED:
            self._used = _by_place(use.image for use in self._uses.all())
            self._used_as_of = time.monotonic()
        return self._used

    def _list(self) -> dict[str, set[tuple[Digest, Digest]]]:
        """What is listed, by repository; read again where the list has changed."""
        try:
            status = self._content.layout.index.stat()
        except FileNotFoundError:
            return {}
        as_of = (status.st_ino, status.st_mtime_ns, status.st_size)
        if as_of != self._list_as_of:
            self._listed, self._list_as_of = _by_place(self._content.images.all()), as_of
        return self._listed


def _by_place(images: Iterable[ImageRecord]) -> dict[str, set[tuple[Digest, Digest]]]:
    found: defaultdict[str, set[tuple[Digest, Digest]]] = defaultdict(set)
    for image in images:
        found[_place(image)].add((image.manifest.digest, image.digest))
    return dict(found)


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

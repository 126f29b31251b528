"""What a push takes: the manifests, children first, and the blobs, open: what is collected meanwhile is not missed."""

import errno
import os
import resource
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from pullonce.errors import Permanent
from pullonce.oci import platform as platforms
from pullonce.oci.reference import parse
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from schemas.oci import Descriptor, Digest, Index, Manifest
from services.fetcher.documents.manifest import MANIFEST_LIMIT, read_document

_MOST_READ = 200
"""Images of a registry whose manifests are read to find out which repositories have a blob."""
_NAMED = 4
"""Things that are missing which are named."""
_MANY = 1 << 18
_DEEPEST = 8
"""Indexes within indexes. An image has one; what was made to hurt has as many as it likes."""


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, byte for byte as it was pulled."""

    described: Descriptor
    content: bytes


@dataclass(slots=True)
class Outgoing:
    """What goes out, and in which order.

    Attributes:
        documents: children first; the last one is what the target names.
        blobs: everything else, by digest.
        files: each of these, open for reading.
        left: layers that their publisher does not let registries pass on.

    `close` closes the files.
    """

    documents: list[Document] = field(default_factory=list)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    files: dict[Digest, int] = field(default_factory=dict)
    left: dict[Digest, Descriptor] = field(default_factory=dict)
    opened: ExitStack = field(default_factory=ExitStack)

    @property
    def top(self) -> Descriptor:
        return self.documents[-1].described

    def close(self) -> None:
        self.opened.close()


def chosen(content: ContentStore, reference: str, platform: str, *, any_platform: bool) -> ImageRecord:
    """The image that is meant.

    Args:
        platform: normalised; empty: that of this machine, or the only one that is there.
        any_platform: which one does not matter.

    Raises:
        Permanent: `image.missing`; it is not there, or not for that platform.
    """
    records = content.images.named(reference)
    machine = os.uname()
    wanted = platform or platforms.spell(machine.sysname, machine.machine)
    found = content.images.find(reference, wanted)
    if found is None and records and (any_platform or (len(records) == 1 and not platform)):
        return records[-1]
    if found is None:
        there = ", ".join(record.platform for record in records)
        what = f"{reference} is not in the store" + (f" for {wanted}, but for {there}" if records else "")
        do = "say which with --platform" if records and not platform else "pull it first"
        raise Permanent(f"{what}; {do}", code="image.missing")
    return found


class OpenFiles:
    """The files that all pushes of a process have open: no more than leave the rest of it enough.

    Args:
        most: of them.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, count: int, opened: ExitStack) -> None:
        """Take so many, which `opened` gives back.

        Raises:
            Permanent: `push.busy`; there are not so many.
        """
        with self._lock:
            if self._taken + count > self.most:
                raise _busy(f"{count} files have to be open for it, of {self.most - self._taken} that pushes still may")
            self._taken += count
        opened.callback(self._give, count)

    def _give(self, count: int) -> None:
        with self._lock:
            self._taken -= count


def half_of_all() -> OpenFiles:
    """Half of what this process may open (getrlimit(2))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OpenFiles(_MANY if soft == resource.RLIM_INFINITY else min(_MANY, soft // 2))


def gather(content: ContentStore, record: ImageRecord, files: OpenFiles, *, index: bool, nondistributable: bool) -> Outgoing:
    """Read and open all of an image under the lock of the store; the caller closes it.

    Args:
        index: what the reference named, with all platforms, instead of the one platform's image.
        nondistributable: layers that registries may not pass on go out too.

    Raises:
        Permanent: `push.busy`; `blob.missing`, with what to pull; `blob.damaged`; `MANIFEST_INVALID`, for indexes too deep
            in one another.
    """
    out, missing = Outgoing(), list[str]()
    with ExitStack() as opened, content.images.hold():
        top = record.manifest
        if index and record.digest != top.digest:
            top = Descriptor(media_type="", digest=record.digest, size=content.size(record.digest))
        _Taking(content, record.reference, out, missing).take(top, "", 0)
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            do = "pull them first" if index else "`pullonce verify --repair` fetches what is missing"
            what = f"the store lacks of {record.reference}: {', '.join(missing[:_NAMED])}{more}; {do}"
            raise Permanent(what, code="blob.missing", concerns="key")
        if not nondistributable:
            out.left = {digest: blob for digest, blob in out.blobs.items() if blob.urls and _foreign(blob)}
            out.blobs = {digest: blob for digest, blob in out.blobs.items() if digest not in out.left}
        files.take(len(out.blobs), opened)
        for digest, blob in out.blobs.items():
            out.files[digest] = _open(content, blob, opened)
        out.opened = opened.pop_all()
    return out


def origins(content: ContentStore, registry: str, target: str, reference: str, wanted: Iterable[Digest]) -> dict[Digest, str]:
    """Blob → another repository of the registry that, as far as this store knows, has it.

    Args:
        registry, target: where it goes; `target` is the repository.
        reference: what is pushed; its own repository is the likeliest.
    """
    needed, found = set(wanted), dict[Digest, str]()
    own = parse(reference).name
    records = [each for each in content.images.all() if each.reference.startswith(f"{registry}/")]
    records.sort(key=lambda each: parse(each.reference).name != own)
    for record in records[:_MOST_READ]:
        repository = parse(record.reference).repository
        if repository == target or not needed:
            continue
        try:
            for blob in _blobs_of(content, record):
                if blob.digest in needed:
                    found[blob.digest] = repository
                    needed.discard(blob.digest)
        except Permanent:
            continue
    return found


def _blobs_of(content: ContentStore, record: ImageRecord) -> Iterator[Descriptor]:
    _, document = read_document(content.read(record.manifest.digest, MANIFEST_LIMIT), record.manifest.media_type, "")
    if isinstance(document, Manifest):
        yield document.config
        yield from document.layers


class _Taking:
    """Documents with everything below them, children first, each of them once."""

    def __init__(self, content: ContentStore, reference: str, out: Outgoing, missing: list[str]) -> None:
        self._content = content
        self._name = parse(reference).name
        self._out = out
        self._missing = missing
        self._seen = set[Digest]()

    def take(self, top: Descriptor, platform: str, depth: int) -> None:
        if top.digest in self._seen:
            return
        self._seen.add(top.digest)
        named = f"{platform or 'a part'} (`pullonce pull {self._name}@{top.digest}`)"
        if not self._content.has(top.digest):
            self._missing.append(named)
            return
        body = self._content.read(top.digest, MANIFEST_LIMIT)
        media_type, document = read_document(body, top.media_type, top.digest)
        if isinstance(document, Index):
            if depth == _DEEPEST:
                what = f"{self._name} has more than {_DEEPEST} indexes one in another; no image needs that"
                raise Permanent(what, code="MANIFEST_INVALID")
            for entry in document.manifests:
                self.take(entry, platforms.platform_of(entry.platform), depth + 1)
        else:
            self._take_blobs(document, named if platform else "")
        self._out.documents.append(Document(Descriptor(media_type=media_type, digest=top.digest, size=len(body)), body))

    def _take_blobs(self, manifest: Manifest, named: str) -> None:
        for blob in (*manifest.layers, manifest.config):
            if not self._content.has(blob.digest):
                self._missing.append(named or blob.digest)
                break
            self._out.blobs.setdefault(blob.digest, blob)


def _open(content: ContentStore, blob: Descriptor, opened: ExitStack) -> int:
    path = content.blob_path(blob.digest)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise _busy(str(exc)) from exc
    opened.callback(os.close, file)
    if (size := os.fstat(file).st_size) != blob.size:
        what = f"{path} has {size} bytes instead of {blob.size}; `pullonce verify --repair` fetches it again"
        raise Permanent(what, code="blob.damaged", concerns="key")
    return file


def _busy(why: str) -> Permanent:
    do = "try again later, or let the fetcher open more (`ulimit -n`, LimitNOFILE)"
    return Permanent(f"too much is open for this push: {why}; {do}", code="push.busy")


def _foreign(blob: Descriptor) -> bool:
    return ".foreign." in blob.media_type or ".nondistributable." in blob.media_type

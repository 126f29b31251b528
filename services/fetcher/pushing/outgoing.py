"""What a push takes: the manifests, children first, and the blobs, open: what is collected meanwhile is not missed."""

import os
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
    """

    documents: list[Document] = field(default_factory=list)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    files: dict[Digest, int] = field(default_factory=dict)
    left: dict[Digest, Descriptor] = field(default_factory=dict)

    @property
    def top(self) -> Descriptor:
        return self.documents[-1].described


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


def gather(content: ContentStore, record: ImageRecord, opened: ExitStack, *, index: bool, nondistributable: bool) -> Outgoing:
    """Read and open all of an image under the lock of the store.

    Args:
        index: what the reference named, with all platforms, instead of the one platform's image.
        opened: closes the files.
        nondistributable: layers that registries may not pass on go out too.

    Raises:
        Permanent: `blob.missing`, with what to pull; `blob.damaged`.
    """
    out, missing = Outgoing(), list[str]()
    with content.images.hold():
        top = record.manifest
        if index and record.digest != top.digest:
            top = Descriptor(media_type="", digest=record.digest, size=content.size(record.digest))
        _take(content, record.reference, top, "", out, missing)
        if missing:
            more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            do = "pull them first" if index else "`pullonce verify --repair` fetches what is missing"
            what = f"the store lacks of {record.reference}: {', '.join(missing[:_NAMED])}{more}; {do}"
            raise Permanent(what, code="blob.missing", concerns="key")
        if not nondistributable:
            out.left = {digest: blob for digest, blob in out.blobs.items() if blob.urls and _foreign(blob)}
            out.blobs = {digest: blob for digest, blob in out.blobs.items() if digest not in out.left}
        for digest, blob in out.blobs.items():
            out.files[digest] = _open(content, blob, opened)
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


def _take(content: ContentStore, reference: str, top: Descriptor, platform: str, out: Outgoing, missing: list[str]) -> None:
    """A document with everything below it, children first."""
    if any(each.described.digest == top.digest for each in out.documents):
        return
    named = f"{platform or 'a part'} (`pullonce pull {parse(reference).name}@{top.digest}`)"
    if not content.has(top.digest):
        missing.append(named)
        return
    body = content.read(top.digest, MANIFEST_LIMIT)
    media_type, document = read_document(body, top.media_type, top.digest)
    if isinstance(document, Index):
        for entry in document.manifests:
            _take(content, reference, entry, platforms.platform_of(entry.platform), out, missing)
    else:
        for blob in (*document.layers, document.config):
            if not content.has(blob.digest):
                missing.append(named if platform else blob.digest)
                break
            out.blobs.setdefault(blob.digest, blob)
    out.documents.append(Document(Descriptor(media_type=media_type, digest=top.digest, size=len(body)), body))


def _open(content: ContentStore, blob: Descriptor, opened: ExitStack) -> int:
    path = content.blob_path(blob.digest)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    opened.callback(os.close, file)
    if (size := os.fstat(file).st_size) != blob.size:
        what = f"{path} has {size} bytes instead of {blob.size}; `pullonce verify --repair` fetches it again"
        raise Permanent(what, code="blob.damaged", concerns="key")
    return file


def _foreign(blob: Descriptor) -> bool:
    return ".foreign." in blob.media_type or ".nondistributable." in blob.media_type

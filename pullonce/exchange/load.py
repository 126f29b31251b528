"""Read an archive of images into a store: `pullonce import`.

Blobs are verified by digest and size before they are visible, whatever the archive says. What was read stays when the import is
interrupted, and the next one goes past it; a file that is not whole has no name and vanishes with its process.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from pullonce.errors import Permanent
from pullonce.exchange import archive
from pullonce.exchange.read import ArchiveInvalid, File, FoundImage, is_blob, listed, saved
from pullonce.oci.digest import digest_bytes
from pullonce.store.content import ContentStore
from pullonce.store.disk import disk_errors, sync_directory
from schemas.oci import Digest

_LONGEST_DOCUMENT = 16 << 20
_MOST_DOCUMENTS = 256 << 20
"""Bytes of small files that are kept in mind until it is known which of them count."""
_CHUNK = 1 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


class ArchiveSource(Protocol):
    """The files of an archive, one after another."""

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes], str]]:
        """Name, bytes, content, and the name of another file where it is a link to that."""
        ...


@dataclass(slots=True)
class Loaded:
    """What an import brought."""

    images: list[FoundImage] = field(default_factory=list)
    fresh: dict[Digest, int] = field(default_factory=dict)
    """Blobs that were not in the store before, with their sizes."""


def load(content: ContentStore, source: ArchiveSource, tell: Callable[[int], None] = lambda count: None) -> Loaded:
    """Read an archive into a store. Nothing is listed yet.

    Args:
        tell: called with the bytes of each step.

    Raises:
        ArchiveInvalid: it is no archive of images, or lacks a part.
        Permanent: a blob is not what its digest says (`digest.mismatch`), or the disk refuses.
    """
    loading = _Loading(content, tell)
    with ExitStack() as kept:
        try:
            for name, size, file, link in source:
                loading.take(name, size, file, link, kept)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as exc:
            raise ArchiveInvalid(f"it is no tar that can be read to its end: {exc}") from exc
        return loading.finish()


class _Loading:
    """One import under way."""

    def __init__(self, content: ContentStore, tell: Callable[[int], None]) -> None:
        self._content = content
        self._tell = tell
        self._loaded = Loaded()
        self._documents: dict[str, bytes] = {}
        self._kept = 0
        self._unnamed: dict[str, tuple[_Draft, File]] = {}
        self._links: dict[str, str] = {}

    def take(self, name: str, size: int, file: IO[bytes], link: str, kept: ExitStack) -> None:
        if link:
            self._links[name] = link
        elif digest := is_blob(name):
            if not self._content.has(digest):
                with _draft(self._content, digest, size) as draft:
                    draft.fill(file, size, self._tell)
                    self._place(draft, digest)
        elif size <= _LONGEST_DOCUMENT and not name.endswith(".tar"):
            self._kept += size
            if self._kept > _MOST_DOCUMENTS:
                raise ArchiveInvalid("the archive has more small files than an archive of images; expected `docker save`'s")
            self._documents[name] = file.read(size)
        elif name.endswith(".tar"):  # a layer in docker's older form: what it is called is known when it is read
            draft = kept.enter_context(_draft(self._content, Digest("sha256:"), size))
            draft.fill(file, size, self._tell)
            self._unnamed[name] = draft, File(draft.digest(), size, draft.compression)

    def finish(self) -> Loaded:
        if archive.INDEX in self._documents:
            self._loaded.images = listed(self._documents[archive.INDEX], self._read, self._content.has)
        elif archive.LIST in self._documents:
            self._saved(self._documents[archive.LIST])
        else:
            raise ArchiveInvalid("there is neither index.json nor manifest.json: it is no archive of images")
        if not self._loaded.images:
            raise ArchiveInvalid("the archive lists no image")
        return self._loaded

    def _saved(self, document: bytes) -> None:
        """Docker's older form: what its list names becomes blobs."""
        files = {name: file for name, (_, file) in self._unnamed.items()}
        files |= {name: File(digest_bytes(each), len(each)) for name, each in self._documents.items()}
        files |= {name: files[target] for name, target in self._links.items() if target in files}
        images = saved(document, files, lambda digest: self._small(files, digest))
        wanted = {blob.digest for image, _ in images for blob in image.blobs}
        for draft, file in self._unnamed.values():
            if file.digest in wanted and not self._content.has(file.digest):
                self._place(draft, file.digest)
        for document in (*self._documents.values(), *(manifest for _, manifest in images)):
            digest = digest_bytes(document)
            if digest in wanted and not self._content.has(digest):
                with _draft(self._content, digest, len(document)) as draft:
                    draft.write(document)
                    self._place(draft, digest)
        self._loaded.images = [image for image, _ in images]

    def _small(self, files: dict[str, File], digest: Digest) -> bytes | None:
        return next((each for name, each in self._documents.items() if files[name].digest == digest), None)

    def _read(self, digest: Digest) -> bytes | None:
        try:
            return self._content.read(digest, _LONGEST_DOCUMENT)
        except Permanent:
            return None

    def _place(self, draft: _Draft, digest: Digest) -> None:
        draft.place(digest)
        self._loaded.fresh[digest] = draft.size


class _Draft:
    """A file of the store that has no name yet."""

    def __init__(self, descriptor: int, directory: Path, content: ContentStore, expected: Digest, size: int) -> None:
        self._descriptor = descriptor
        self._directory = directory
        self._content = content
        self._hash = hashlib.new(expected.partition(":")[0])
        self._expected = expected
        self._size = size
        self.size = 0
        self.compression = ""

    def fill(self, file: IO[bytes], size: int, tell: Callable[[int], None]) -> None:
        while self.size < size and (chunk := file.read(min(_CHUNK, size - self.size))):
            self.write(chunk)
            tell(len(chunk))
        if self.size < size:
            raise ArchiveInvalid(f"the archive ends in the middle of a file of {size} bytes")

    def write(self, chunk: bytes) -> None:
        if not self.size:
            self.compression = next((name for magic, name in _MAGIC.items() if chunk.startswith(magic)), "")
        with disk_errors(self._directory, self._size):
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._hash.update(chunk)
        self.size += len(chunk)

    def digest(self) -> Digest:
        return Digest(f"{self._hash.name}:{self._hash.hexdigest()}")

    def place(self, digest: Digest) -> None:
        """Give it its name, once it is verified and on the disk. Whoever was earlier has brought the same."""
        if self.digest() != digest:
            raise Permanent(f"what the archive calls {digest} is {self.digest()}", code="digest.mismatch")
        final = self._content.blob_path(digest)
        with disk_errors(final, self._size):
            os.fsync(self._descriptor)
            final.parent.mkdir(exist_ok=True)
            try:
                # Python follows the link in /proc only where a directory is given as well, though this path needs none.
                os.link(f"/proc/self/fd/{self._descriptor}", final, src_dir_fd=self._descriptor, follow_symlinks=True)
            except FileExistsError:
                return
            sync_directory(final.parent)


@contextmanager
def _draft(content: ContentStore, expected: Digest, size: int) -> Iterator[_Draft]:
    directory = content.layout.ingest
    with disk_errors(directory, size):
        try:
            descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
            named = None
        except OSError:  # a file system that makes no file without a name
            named = directory / f".import.{secrets.token_hex(8)}"
            descriptor = os.open(named, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        yield _Draft(descriptor, directory, content, expected, size)
    finally:
        os.close(descriptor)
        if named is not None:
            named.unlink(missing_ok=True)


class TarSource:
    """A tar, read once from its beginning, compressed or not.

    Args:
        stream: where it comes from; a pipe is as good as a file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes], str]]:
        with tarfile.open(fileobj=self._stream, mode="r|*") as tar:
            for member in tar:
                name = _inside(member.name)
                if member.issym() or member.islnk():
                    base = "" if member.islnk() else name.rpartition("/")[0]
                    yield name, 0, self._stream, _inside(os.path.normpath(f"{base}/{member.linkname}"))
                elif member.isreg():
                    file = tar.extractfile(member)
                    assert file is not None  # it is a regular file
                    yield name, member.size, file, ""


class DirectorySource:
    """An image layout in a directory. Links are not followed.

    Args:
        root: where `index.json` lies.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes], str]]:
        names = [archive.INDEX, *(f"blobs/{each}" for each in self._blobs())]
        for name in names:
            try:
                descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as exc:
                raise ArchiveInvalid(
                    f"{self._root / name} cannot be read: {exc.strerror}; expected an OCI image layout"
                ) from exc
            with open(descriptor, "rb") as file:
                yield name, os.fstat(descriptor).st_size, file, ""

    def _blobs(self) -> Iterator[str]:
        for algorithm in sorted((self._root / "blobs").glob("sha*")):
            yield from sorted(f"{algorithm.name}/{each.name}" for each in algorithm.iterdir() if each.is_file())


def _inside(name: str) -> str:
    return os.path.normpath(name).lstrip("/")

"""Read an archive of images into a store: `pullonce import`.

Blobs are verified by digest and size before they are visible, whatever the archive says. What was read stays when the import is
interrupted, and the next one goes past it; a file that is not whole has no name and vanishes with its process.
"""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import secrets
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pullonce.errors import Permanent
from pullonce.exchange import archive
from pullonce.exchange.holding import ImportHold
from pullonce.exchange.read import ArchiveInvalid, File, FoundImage, is_blob, listed, saved
from pullonce.exchange.sources import ArchiveSource
from pullonce.oci.digest import digest_bytes
from pullonce.store.content import ContentStore
from pullonce.store.disk import begin_writing, disk_errors, sync_directory
from pullonce.store.open_files import TOO_MANY_FILES
from schemas.oci import Digest

_LONGEST_DOCUMENT = 16 << 20
_MOST_DOCUMENTS = 256 << 20
"""Bytes of small files that are kept in mind until it is known which of them count."""
_CHUNK = 1 << 20
_BATCH = 8 << 20
"""Bytes after which the file system is told to begin writing them to the disk."""
_BEHIND = 2
"""Blobs that may be on their way to the disk while the next one is read."""
_THREADS = 1 + _BEHIND
_LAYERS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
"""How layers are called in docker's older form, by docker and by others that write it."""
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(slots=True)
class Loaded:
    """What an import brought."""

    images: list[FoundImage] = field(default_factory=list)
    fresh: dict[Digest, int] = field(default_factory=dict)
    """Blobs that were not in the store before, with their sizes."""


def load(
    content: ContentStore, source: ArchiveSource, hold: ImportHold, tell: Callable[[int], None] = lambda count: None
) -> Loaded:
    """Read an archive into a store. Nothing is listed yet.

    Args:
        hold: keeps what is found or brought until it is.
        tell: called with the bytes of each step.

    Raises:
        ArchiveInvalid: it is no archive of images, or lacks a part.
        Permanent: a blob is not what its digest says (`digest.mismatch`), or the disk refuses.
    """
    with ExitStack() as kept:
        loading = _Loading(content, hold, tell, kept.enter_context(ThreadPoolExecutor(_THREADS, "import")))
        try:
            for name, size, file, link in source:
                loading.take(name, size, file, link, kept)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as exc:
            raise ArchiveInvalid(f"it is no tar that can be read to its end: {exc}") from exc
        return loading.finish()


class _Loading:
    """One import under way."""

    def __init__(
        self, content: ContentStore, hold: ImportHold, tell: Callable[[int], None], threads: ThreadPoolExecutor
    ) -> None:
        self._content = content
        self._hold = hold
        self._tell = tell
        self._threads = threads
        self._placing: deque[Future[None]] = deque()
        """Blobs that are on their way to the disk, in the order in which they came."""
        self._loaded = Loaded()
        self._documents: dict[str, bytes] = {}
        self._kept = 0
        self._unnamed: dict[str, tuple[_Draft, File]] = {}
        self._named: dict[str, tuple[Digest, int]] = {}
        self._links: dict[str, str] = {}

    def take(self, name: str, size: int, file: IO[bytes], link: str, kept: ExitStack) -> None:
        if link:
            self._links[name] = link
        elif digest := is_blob(name):
            self._named[name] = digest, size
            if not self._hold.keep(digest):
                with ExitStack() as stack:
                    draft = stack.enter_context(_draft(self._content, digest, size))
                    draft.fill(file, size, self._tell, self._threads)
                    self._place_behind(draft, digest, stack.pop_all())
        elif size <= _LONGEST_DOCUMENT and not name.endswith(_LAYERS):
            self._kept += size
            if self._kept > _MOST_DOCUMENTS:
                raise ArchiveInvalid("the archive has more small files than an archive of images; expected `docker save`'s")
            self._documents[name] = file.read(size)
        else:  # a layer in docker's older form: what it is called is known when it is read
            draft = kept.enter_context(_draft(self._content, Digest("sha256:"), size))
            draft.fill(file, size, self._tell, self._threads)
            self._unnamed[name] = draft, File(draft.digest(), size, draft.compression)

    def finish(self) -> Loaded:
        self._wait(0)
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
        files |= {name: File(digest_bytes(each), len(each), _compression(each)) for name, each in self._documents.items()}
        files |= {name: File(digest, size, self._compression_of(digest)) for name, (digest, size) in self._named.items()}
        files |= {name: files[target] for name, target in self._links.items() if target in files}
        images = saved(document, files, lambda digest: self._small(files, digest))
        wanted = {blob.digest for image, _ in images for blob in image.blobs}
        for draft, file in self._unnamed.values():
            if file.digest in wanted and not self._hold.keep(file.digest):
                self._place(draft, file.digest)
        for document in (*self._documents.values(), *(manifest for _, manifest in images)):
            digest = digest_bytes(document)
            if digest in wanted and not self._hold.keep(digest):
                with _draft(self._content, digest, len(document)) as draft:
                    draft.write(document)
                    self._place(draft, digest)
        self._loaded.images = [image for image, _ in images]

    def _small(self, files: dict[str, File], digest: Digest) -> bytes | None:
        found = next((each for name, each in self._documents.items() if files[name].digest == digest), None)
        return found if found is not None else self._read(digest)

    def _compression_of(self, digest: Digest) -> str:
        with self._content.blob_path(digest).open("rb") as file:
            return _compression(file.read(8))

    def _read(self, digest: Digest) -> bytes | None:
        try:
            return self._content.read(digest, _LONGEST_DOCUMENT)
        except Permanent:
            return None

    def _place_behind(self, draft: _Draft, digest: Digest, open_files: ExitStack) -> None:
        """Place a draft while the next one is read: the disk and the processor need not wait for each other."""
        draft.check(digest)

        def place() -> None:
            with open_files:
                self._place(draft, digest)

        self._placing.append(self._threads.submit(place))
        self._wait(_BEHIND)

    def _wait(self, most: int) -> None:
        """Wait until at most so many are on their way. Raises what went wrong with one."""
        while len(self._placing) > most:
            self._placing.popleft().result()

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

    def fill(self, file: IO[bytes], size: int, tell: Callable[[int], None], threads: ThreadPoolExecutor) -> None:
        """Copy a file. Each piece is hashed by another thread while it is written, and on its way to the disk from then on."""
        hashed: Future[None] | None = None
        while self.size < size and (chunk := file.read(min(_CHUNK, size - self.size))):
            if hashed is not None:
                hashed.result()
            hashed = threads.submit(self._hash.update, chunk)
            self._append(chunk)
            tell(len(chunk))
        if hashed is not None:
            hashed.result()
        if self.size < size:
            raise ArchiveInvalid(f"the archive ends in the middle of a file of {size} bytes")

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._append(chunk)

    def _append(self, chunk: bytes) -> None:
        if not self.size:
            self.compression = _compression(chunk)
        with disk_errors(self._directory, self._size):
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._descriptor, view) :]
        self.size += len(chunk)
        if self.size % _BATCH < len(chunk):
            begin_writing(self._descriptor, max(0, self.size - _BATCH), _BATCH)

    def digest(self) -> Digest:
        return Digest(f"{self._hash.name}:{self._hash.hexdigest()}")

    def check(self, digest: Digest) -> None:
        """Raises Permanent: `digest.mismatch`."""
        if self.digest() != digest:
            raise Permanent(f"what the archive calls {digest} is {self.digest()}", code="digest.mismatch")

    def place(self, digest: Digest) -> None:
        """Give it its name, once it is verified and on the disk. Whoever was earlier has brought the same."""
        self.check(digest)
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


def _compression(content: bytes) -> str:
    """What content is compressed with, by its first bytes; empty: nothing that layers are compressed with."""
    return next((name for magic, name in _MAGIC.items() if content.startswith(magic)), "")


@contextmanager
def _draft(content: ContentStore, expected: Digest, size: int) -> Iterator[_Draft]:
    directory = content.layout.ingest
    with disk_errors(directory, size):
        try:
            descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
            named = None
        except OSError as exc:  # a file system that makes no file without a name
            if exc.errno == errno.EMFILE:
                raise ArchiveInvalid(f"{TOO_MANY_FILES} for the layers of this archive: raise it") from exc
            named = directory / f".import.{secrets.token_hex(8)}"
            descriptor = os.open(named, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        yield _Draft(descriptor, directory, content, expected, size)
    finally:
        os.close(descriptor)
        if named is not None:
            named.unlink(missing_ok=True)

"""The content store: blobs by digest, on disk as an OCI image layout that skopeo and umoci can read.

The life of a blob. `ingest` opens its growing file under a lock, with whatever an earlier attempt left; bytes are appended and
hashed; `commit` checks size and digest, syncs, and renames it into `blobs/`: only then can anybody see it, and what can be
seen is complete and right. A crash leaves a growing file that the next attempt continues. Nothing else is ever written there.

Path names are those of `layout`.
"""

import asyncio
import os
import secrets
from contextlib import AbstractAsyncContextManager
from os.path import isfile
from pathlib import Path

import msgspec

from pullonce import private
from pullonce.errors import Permanent
from pullonce.oci.digest import matches, parse_digest
from pullonce.store.disk import disk_errors, replace_file, sync_directory
from pullonce.store.images import Images
from pullonce.store.ingest import Ingest, ingesting
from pullonce.store.layout import Layout
from pullonce.store.together import Together
from schemas.oci import Descriptor, Digest

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'


class ContentStore:
    """The blobs of one store. Any number of processes may read and write one at once.

    Args:
        root: the store's directory (`config.store_root`). Nothing is touched until it is used; see `open_store`.
        sync: whether content is synced to the disk before it becomes visible. Without it a power cut may leave damaged content.
    """

    def __init__(self, root: Path, *, sync: bool = True) -> None:
        self.root = root
        self.layout = Layout(root)
        self.images = Images(root, sync=sync)
        self._sync = sync
        self._together = Together()
        self._blobs = os.fspath(self.layout.blobs)

    @property
    def incarnation(self) -> str:
        """Names this life of the store: it changes when the store was wiped. Empty where there is none."""
        try:
            return str(msgspec.json.decode(self.layout.store.read_bytes())["incarnation"])
        except FileNotFoundError:
            return ""

    def blob_path(self, digest: Digest) -> Path:
        """Where a blob lies once it is complete. Raises Permanent (`DIGEST_INVALID`) for what is no digest."""
        return self.layout.blob(parse_digest(digest))

    def ingest_path(self, digest: Digest) -> Path:
        """The growing file of a blob that is being fetched; its size is the number of bytes available."""
        return self.layout.growing(parse_digest(digest))

    def has(self, digest: Digest) -> bool:
        """Whether the blob is there: complete and verified."""
        algorithm, _, name = parse_digest(digest).partition(":")
        # As text: a path of parts takes longer to be put together than the disk to look, and this is asked at every turn.
        return isfile(f"{self._blobs}/{algorithm}/{name}")  # noqa: PTH113

    def reserved(self, digest: Digest) -> int:
        """Bytes of the disk that the growing file of a blob holds already, room for what is to come included."""
        try:
            return self.ingest_path(digest).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def size(self, digest: Digest) -> int:
        """Bytes of a blob that is there. Raises Permanent (`blob.missing`) where it is not."""
        try:
            return self.blob_path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def read(self, digest: Digest, limit: int) -> bytes:
        """The bytes of a small blob (a manifest, a config), checked against their digest.

        Raises:
            Permanent: `blob.missing`, `blob.damaged`, or `blob.oversized` where it has more than `limit` bytes.
        """
        try:
            with disk_errors(self.blob_path(digest)), open(self.blob_path(digest), "rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError:
            raise _missing(digest) from None
        if len(content) > limit:
            raise Permanent(f"{digest} has more than the {limit} bytes that such a document may have", code="blob.oversized")
        if not matches(content, digest):
            raise Permanent(f"{self.blob_path(digest)} is damaged: it has another digest", code="blob.damaged", concerns="key")
        return content

    def discard(self, digest: Digest) -> bool:
        """Remove a blob that was found damaged. Returns whether it was there."""
        with disk_errors(self.blob_path(digest)):
            try:
                self.blob_path(digest).unlink()
            except FileNotFoundError:
                return False
        return True

    def ingest(self, blob: Descriptor, *, wait: float | None = None) -> AbstractAsyncContextManager[Ingest]:
        """Open the growing file of a blob for its one writer; waits while there is another, in this process or elsewhere.

        Inside, `present` says that the blob is complete already and nothing need be written; otherwise bytes are to be
        appended from `offset` on. Leaving without `commit` keeps what was written, for the next attempt.

        Args:
            wait: seconds for which another writer is waited for; None: until it is done.

        Raises:
            TimeoutError: another one is still at it.
            Permanent: the disk refuses, or has visibly too little room (`disk.full`).
        """
        growing, final = self.ingest_path(blob.digest), self.blob_path(blob.digest)
        return ingesting(growing, final, blob, sync=self._sync, together=self._together, wait=wait)

    async def put(self, blob: Descriptor, content: bytes) -> None:
        """Store a small blob that is at hand. Afterwards it is there, whoever stored it.

        It does not wait for whoever is writing the same blob: a source that sends it drop by drop holds that lock for as long.

        Raises:
            Permanent: `digest.mismatch` where the content is not what the descriptor says; or the disk refuses.
        """
        if len(content) != blob.size or not matches(content, blob.digest):
            raise Permanent(f"what should be {blob.digest} ({blob.size} bytes) is something else", code="digest.mismatch")
        if not self.has(blob.digest):
            await asyncio.to_thread(self._place, blob, content)

    def _place(self, blob: Descriptor, content: bytes) -> None:
        final = self.blob_path(blob.digest)
        private = self.ingest_path(blob.digest).with_suffix(f".{secrets.token_hex(8)}")
        try:
            with disk_errors(final, blob.size):
                with open(private, "xb") as file:
                    file.write(content)
                    file.flush()
                    if self._sync:
                        os.fsync(file.fileno())
                final.parent.mkdir(exist_ok=True)  # the first blob of its digest algorithm
                private.replace(final)
                if self._sync:
                    sync_directory(final.parent)
        except BaseException:
            private.unlink(missing_ok=True)
            raise


def open_store(root: Path, *, sync: bool = True, group: str | None = None) -> ContentStore:
    """Open a store, make what is missing of it, and close it to others. Harmless to repeat, and for several processes at once.

    Args:
        group: whose members may read it; empty: nobody else; None: leave that as it is, but never open to everybody.

    Raises:
        Permanent: the disk refuses; `disk.unsafe`: it leads to where somebody else decided.
    """
    layout = Layout(root)
    with disk_errors(root):
        private.directory(str(root), group)
        for directory in (
            layout.blobs,
            layout.blobs / "sha256",
            layout.ingest,
            layout.snapshots,
            layout.uses,
            layout.holds,
            layout.images,
        ):
            private.make(str(directory))
        for closed in (layout.staging, layout.trees, layout.uploads):
            private.make(str(closed), 0o700)
        _make(layout.marker, _LAYOUT)
        _make(layout.store, msgspec.json.encode({"incarnation": secrets.token_hex(8)}) + b"\n")
        store = ContentStore(root, sync=sync)
        with store.images.hold():
            store.images.mend()
    return store


def opened(root: Path) -> ContentStore:
    """A store, with what is missing of it made.

    One that belongs to another user, a fetcher without privileges, is that user's to make: its owner could not write to what
    root made in it.

    Raises:
        Permanent: the disk refuses.
    """
    foreign = root.is_dir() and root.stat().st_uid != os.geteuid()
    return ContentStore(root) if foreign else open_store(root)


def _make(path: Path, content: bytes) -> None:
    """Give a file its first content. Of several processes one wins, and nobody sees it empty."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    replace_file(draft, content)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _missing(digest: Digest) -> Permanent:
    return Permanent(f"{digest} is not in the store", code="blob.missing", concerns="key")
